#include "adapters/ia3/ia3_adapter.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "adapters/base_name.hpp"
#include "adapters/formats/ia3.hpp"
#include "adapters/formats/kohya.hpp"
#include "adapters/formats/picture_lora.hpp"
#include "adapters/formats/site_shape.hpp"
#include "adapters/targets.hpp"
#include "base/error.hpp"
#include "nn/ia3.hpp"

namespace lorascale::adapters {
namespace {

struct ScaledLayer {
  nn::Site site;
  bool of_inputs = false;
  double lr_ratio = 1.0;  // of the run's rate

  [[nodiscard]] std::int64_t width() const {
    return of_inputs ? site.in_features() : site.out_features();
  }
};

bool is_of_pictures(const AdaptedModel& model) {
  return !model.sites.empty() && !model.sites.front().kohya_name.empty();
}

// Of the path alone, whatever the model.
void require_ia3(const std::string& path, bool is_ia3) {
  if (!is_ia3) {
    throw_bad_config("adapter.init_from: " + path +
                     " is of LoRA, and adapter.type is ia3; set adapter.type: lora");
  }
}

std::optional<PeftAdapter> start_of(const config::AdapterSection& section,
                                    const AdaptedModel& model) {
  if (!section.init_from) {
    return std::nullopt;
  }
  const auto& path = *section.init_from;
  const auto file = is_of_pictures(model) ? picture_lora(path) : std::nullopt;
  if (is_of_pictures(model) && !file) {
    throw_bad_input("adapter.init_from: " + path +
                    " is no file of IA3 (.safetensors), nor a folder with " + kKohyaFile);
  }
  auto adapter = file ? read_picture_lora(*file, model.sites) : read_peft_adapter(path);
  require_ia3(path, adapter.ia3);
  return adapter;
}

// By adapter.targets and adapter.feedforward.
std::vector<ScaledLayer> layers_of_settings(const config::AdapterSection& section,
                                            const AdaptedModel& model) {
  std::vector<ScaledLayer> layers;
  Targets targets(section.targets);
  for (const auto& site : model.sites) {
    if (!targets.names(site)) {
      continue;
    }
    const bool of_inputs = std::ranges::any_of(
        section.feedforward, [&](const auto& name) { return target_names(name, site.name); });
    if (of_inputs && site.kind != nn::SiteKind::kLinear) {
      throw_bad_config("adapter.feedforward names " + site.name +
                       ", a convolution, whose inputs cannot be scaled; leave it out, and its "
                       "outputs are");
    }
    layers.push_back({site, of_inputs});
  }
  targets.require_all_used(model);
  return layers;
}

// What the file adapts, which settings of its own do not contradict.
std::vector<ScaledLayer> layers_of_file(const PeftAdapter& start,
                                        const config::AdapterSection& section,
                                        const AdaptedModel& model) {
  std::vector<ScaledLayer> layers;
  for (const auto& site : model.sites) {
    const auto found = start.modules.find(site.name);
    if (found == start.modules.end()) {
      continue;
    }
    if (!fits(*found->second.scaling, site)) {
      throw_bad_input("adapter.init_from " + *section.init_from + ": " + site.name +
                      " does not fit this model's shape; it was made for '" + start.base_model +
                      "'");
    }
    layers.push_back({site, found->second.scaling->of_inputs});
  }
  if (layers.size() != start.modules.size()) {
    throw_bad_input("adapter.init_from " + *section.init_from +
                    " has layers that this model lacks; it was made for '" + start.base_model +
                    "'");
  }
  return layers;
}

std::vector<ScaledLayer> layers_of(const config::AdapterSection& section, const AdaptedModel& model,
                                   const std::optional<PeftAdapter>& start) {
  auto layers = start ? layers_of_file(*start, section, model) : layers_of_settings(section, model);
  Exceptions<double> rates(section.lr_pattern, "adapter.lr_pattern");
  for (auto& layer : layers) {
    layer.lr_ratio = rates.of(layer.site.name, 1.0);
  }
  rates.require_all_used();
  std::ranges::stable_sort(layers, std::greater<>(), &ScaledLayer::lr_ratio);
  return layers;
}

// Layers of one rate a group. l - 1 is what is trained: it begins at 0.
std::vector<TrainableParameters::GroupSpec> groups_of(const std::vector<ScaledLayer>& layers) {
  std::vector<TrainableParameters::GroupSpec> groups;
  for (const auto& layer : layers) {
    if (groups.empty() || groups.back().group.lr_ratio != layer.lr_ratio) {
      auto& group = groups.emplace_back().group;
      group.name = layer.lr_ratio == 1 ? std::string("ia3")
                                       : fmt::format("ia3 at {} of the rate", layer.lr_ratio);
      group.lr_ratio = layer.lr_ratio;
      group.decays = false;
      group.vectors = true;
      group.starts_at_zero = true;
    }
    groups.back().entries.push_back({layer.site.name + ".ia3_l", {layer.width()}});
  }
  return groups;
}

class Ia3Adapter : public Adapter {
 public:
  Ia3Adapter(std::vector<ScaledLayer> layers, const AdaptedModel& model)
      : layers_(std::move(layers)),
        sites_(model.sites),
        of_pictures_(is_of_pictures(model)),
        parameters_(groups_of(layers_), layers_.front().site.weight.device()) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const auto& site = layers_[i].site;
      site.attach(std::make_unique<nn::Ia3>(
          scaling_in(parameters_.master(), i),
          TrainableParameters::view(parameters_.gradient(), parameters_.entries()[i]), site.weight,
          site.bias));
    }
  }

  void begin_from(const PeftAdapter& adapter, const std::filesystem::path& base) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      scaling_in(parameters_.master(), i)
          .change.copy_(adapter.modules.at(layers_[i].site.name).scaling->change);
    }
    parameters_.refresh();
    if (!adapter.base_model.empty()) {
      warning_ = warning_of_other_base(adapter, base);
    }
  }

  TrainableParameters& parameters() override { return parameters_; }
  [[nodiscard]] std::string_view result_name() const override { return "adapter"; }
  [[nodiscard]] std::optional<std::string> warning() const override { return warning_; }

  std::optional<double> movement() override {
    const at::NoGradGuard no_grad;
    if (squares_.empty()) {
      for (const auto& layer : layers_) {
        const at::Tensor weight = layer.site.weight.to(at::kFloat).flatten(1);
        squares_.push_back(weight.square().sum(layer.of_inputs ? 0 : 1));
      }
    }
    std::vector<at::Tensor> changed, whole;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const auto scaling = scaling_in(parameters_.master(), i);
      changed.push_back((scaling.change.square() * squares_[i]).sum());
      whole.push_back(squares_[i].sum());
    }
    const auto sum = [](const std::vector<at::Tensor>& values) {
      return at::stack(values).to(at::kDouble).sum().item<double>();
    };
    const double square = sum(whole);
    return square > 0 ? std::optional(std::sqrt(sum(changed) / square)) : std::nullopt;
  }

  void write(const std::filesystem::path& folder, const ExportContext& context) const override {
    const at::Tensor master = parameters_.master().cpu();
    std::vector<Ia3Layer> layers;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      layers.push_back({layers_[i].site, scaling_in(master, i)});
    }
    if (of_pictures_) {
      write_kohya_ia3(folder / kKohyaFile, layers, context);
    } else {
      write_peft_ia3(folder, layers, sites_, context);
    }
  }

 private:
  [[nodiscard]] nn::LayerScaling scaling_in(const at::Tensor& flat, std::size_t i) const {
    return {TrainableParameters::view(flat, parameters_.entries()[i]), layers_[i].of_inputs,
            /*of_bias=*/!of_pictures_};
  }

  std::vector<ScaledLayer> layers_;
  std::vector<nn::Site> sites_;
  bool of_pictures_;
  TrainableParameters parameters_;
  std::optional<std::string> warning_;
  std::vector<at::Tensor> squares_;  // of the weights' rows or columns
};

}  // namespace

std::unique_ptr<Adapter> make_ia3_adapter(const config::AdapterSection& section,
                                          const AdaptedModel& model, std::uint64_t /*seed*/) {
  const auto start = start_of(section, model);
  auto adapter = std::make_unique<Ia3Adapter>(layers_of(section, model, start), model);
  if (start) {
    adapter->begin_from(*start, model.base);
  }
  return adapter;
}

void check_ia3_adapter(const config::AdapterSection& section, const AdaptedModel& model) {
  layers_of(section, model, start_of(section, model));
}

std::optional<std::string> take_ia3_settings(const std::set<std::string>& given,
                                             config::RunConfig* config) {
  const auto& section = config->adapter;
  if (!section.init_from || section.init_from->empty()) {
    return std::nullopt;
  }
  for (const auto* key : {"adapter.targets", "adapter.feedforward"}) {
    if (given.contains(key)) {
      throw_bad_config(std::string(key) + " beside adapter.init_from " + *section.init_from +
                       ": layers are the file's; leave it out");
    }
  }
  return fmt::format("adapter.init_from {}: layers are the file's", *section.init_from);
}

}  // namespace lorascale::adapters
