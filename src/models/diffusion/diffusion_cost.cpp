// What a leaf of pictures costs: operations of its forward, and what that keeps for the backward.
// By shapes alone.
#include <algorithm>

#include "models/diffusion/diffusion_model.hpp"

namespace lorascale::models::diffusion {
namespace {

// What one sample of a UNet needs, summed up along its parts.
struct Cost {
  double products = 0;  // multiplications with additions
  double kept = 0;      // values
};

struct Map {
  std::int64_t height = 0, width = 0;
  [[nodiscard]] double area() const { return static_cast<double>(height * width); }
  [[nodiscard]] Map halved() const { return {(height + 1) / 2, (width + 1) / 2}; }
};

// Two convolutions and what the time adds; kept are the inputs of both norms.
Cost of_resnet(double in, double out, double time, const Map& map) {
  const double shortcut = in == out ? 0 : in * out;
  return {map.area() * (9 * out * (in + out) + shortcut) + time * out, map.area() * (in + out)};
}

// Of each block: q, k, v and output of attention to itself, q and output of that to the words, the
// inner layer of four widths, twice for its gate, and back; both products of attention.
Cost of_transformer(double channels, double depth, double context, double words, const Map& map) {
  const double area = map.area();
  const double linear =
      channels * channels * (4 + 2 + 8 + 4) * area + 2 * context * channels * words;
  const double attention = 2 * channels * area * (area + words);
  // Three norms' inputs; q, k, v and result; q and result; before the gate.
  const double kept = depth * area * channels * (3 + 4 + 2 + 8);
  return {2 * channels * channels * area + depth * (linear + attention),
          kept + 2 * area * channels};
}

class UNetCost {
 public:
  UNetCost(const UNet& unet, double words)
      : config_(unet.config()), recompute_(unet.recomputes()), words_(words) {}

  Cost of(Map map) {
    const auto time = static_cast<double>(config_.time_width());
    auto before = static_cast<double>(config_.levels.front().channels);
    add({9 * static_cast<double>(config_.in_channels + config_.out_channels) * before * map.area(),
         2 * before * map.area()});
    std::vector<Map> maps;
    std::vector<double> joined = {before};
    for (std::size_t i = 0; i < config_.levels.size(); ++i) {
      const auto& level = config_.levels[i];
      maps.push_back(map);
      for (std::int64_t j = 0; j < config_.layers_per_level; ++j) {
        before = add_layer(level, before, time, map);
        joined.push_back(before);
      }
      if (i + 1 < config_.levels.size()) {
        map = map.halved();
        add({9 * before * before * map.area(), before * maps.back().area()});
        joined.push_back(before);
      }
    }
    const auto& last = config_.levels.back();
    const auto resnet = of_resnet(before, before, time, map);
    add_layer({2 * resnet.products, 2 * resnet.kept},
              of_transformer(static_cast<double>(last.channels),
                             static_cast<double>(config_.middle_depth),
                             static_cast<double>(config_.context), words_, map),
              before * map.area());
    for (std::size_t i = config_.levels.size(); i-- > 0;) {
      for (std::int64_t j = 0; j <= config_.layers_per_level; ++j) {
        before = add_layer(config_.levels[i], before + joined.back(), time, maps[i]);
        joined.pop_back();
      }
      if (i > 0) {
        add({9 * before * before * maps[i - 1].area(), before * maps[i - 1].area()});
      }
    }
    sum_.kept += recomputed_;
    return sum_;
  }

 private:
  void add(const Cost& cost) {
    sum_.products += cost.products;
    sum_.kept += cost.kept;
  }

  // Of layers that are computed again their inputs are kept, and the rest of one at a time.
  void add_layer(const Cost& resnet, const Cost& transformer, double input) {
    const double kept = resnet.kept + transformer.kept;
    add({resnet.products + transformer.products, recompute_ ? input : kept});
    if (recompute_) {
      recomputed_ = std::max(recomputed_, kept);
    }
  }

  double add_layer(const UNetConfig::Level& level, double in, double time, const Map& map) {
    const auto out = static_cast<double>(level.channels);
    const auto transformer = level.depth > 0
                                 ? of_transformer(out, static_cast<double>(level.depth),
                                                  static_cast<double>(config_.context), words_, map)
                                 : Cost{};
    add_layer(of_resnet(in, out, time, map), transformer, in * map.area());
    return out;
  }

  const UNetConfig& config_;
  bool recompute_;
  double words_;
  Cost sum_;
  double recomputed_ = 0;  // what the largest layer keeps while it is
};

Cost of_leaf(const data::Leaf& leaf, const Pipeline& pipeline) {
  const auto& pictures = dynamic_cast<const data::PictureLeaf&>(leaf);
  const auto words = static_cast<double>(pictures.text_rows * (pictures.positions - 2) + 2);
  Cost sum;
  for (const auto& group : pictures.groups) {
    const auto factor = pipeline.config().vae.factor();
    const auto one =
        UNetCost(pipeline.unet(), words).of({group.height / factor, group.width / factor});
    const auto samples = static_cast<double>(group.samples.size());
    sum.products += samples * one.products;
    // Groups follow one another.
    sum.kept = std::max(sum.kept, samples * one.kept);
  }
  return sum;
}

}  // namespace

double DiffusionModel::forward_operations(const data::Leaf& leaf) const {
  return 2 * of_leaf(leaf, pipeline()).products;
}

ActivationBytes DiffusionModel::activation_bytes(const data::Leaf& leaf) const {
  const auto element = static_cast<double>(c10::elementSize(dtype()));
  return {element * of_leaf(leaf, pipeline()).kept, 0};
}

}  // namespace lorascale::models::diffusion
