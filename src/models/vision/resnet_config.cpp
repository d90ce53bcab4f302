#include "models/vision/resnet_config.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>
#include <utility>

#include "io/file_descriptor.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::models::vision {
namespace {

using Fields = io::JsonObject;

// Beyond any model, and small enough for products of them to fit 63 bits.
constexpr std::int64_t kMaxStages = 8;
constexpr std::int64_t kMaxBlocks = 1000;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 14;
constexpr std::int64_t kMaxChannels = 1024;
constexpr std::int64_t kMaxClasses = std::int64_t{1} << 24;
constexpr std::int64_t kMaxSide = std::int64_t{1} << 16;
constexpr std::int64_t kMaxGhostBatch = std::int64_t{1} << 30;

template <typename Kind, std::size_t N>
using Names = std::array<std::pair<std::string_view, Kind>, N>;

constexpr Names<BlockKind, 2> kBlocks = {
    {{"basic", BlockKind::kBasic}, {"bottleneck", BlockKind::kBottleneck}}};
constexpr Names<NormKind, 3> kNorms = {
    {{"batch", NormKind::kBatch}, {"group", NormKind::kGroup}, {"none", NormKind::kNone}}};
constexpr Names<StemKind, 2> kStems = {{{"small", StemKind::kSmall}, {"large", StemKind::kLarge}}};

template <typename Kind, std::size_t N>
Kind kind(const Fields& fields, std::string_view key, const Names<Kind, N>& names) {
  const auto text = fields.text(key);
  std::string known;
  for (const auto& [name, value] : names) {
    if (name == text) {
      return value;
    }
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  fields.fail(key, "is " + io::in_quotes(text) + "; there are " + known);
}

template <typename Kind, std::size_t N>
std::string name_of(Kind kind, const Names<Kind, N>& names) {
  return std::string(
      std::ranges::find(names, kind, &std::pair<std::string_view, Kind>::second)->first);
}

double positive(const Fields& fields, std::string_view key, double fallback) {
  const double value = fields.number_or(key, fallback);
  if (!(value > 0)) {
    fields.fail(key, "must be above zero");
  }
  return value;
}

void refuse_foreign(const Fields& fields) {
  const auto type = fields.text_or("model_type", "");
  if (type != "resnet") {
    fields.fail("model_type", "is " + io::in_quotes(type) + "; a residual network's is 'resnet'");
  }
  for (const char* key : {"hidden_sizes", "layer_type", "embedding_size"}) {
    if (fields.has(key)) {
      fields.fail(key,
                  "belongs to the ResNet of transformers, whose tensors are named otherwise; take "
                  "torchvision's weights, beside a config.json with block, layers and classes");
    }
  }
  fields.allow_only({"model_type",   "architectures", "block",       "layers",
                     "width",        "norm",          "groups",      "ghost_batch",
                     "norm_eps",     "norm_momentum", "stem",        "in_channels",
                     "classes",      "labels",        "image_size",  "image_mean",
                     "image_std",    "dtype",         "torch_dtype", "transformers_version",
                     "_name_or_path"});
}

void read_layers(const Fields& fields, ResNetConfig& config) {
  config.layers = fields.integers("layers", 1, kMaxBlocks);
  if (config.layers.empty() || std::ssize(config.layers) > kMaxStages) {
    fields.fail("layers", "must list the blocks of 1 to " + std::to_string(kMaxStages) +
                              " stages, as [2, 2, 2, 2]");
  }
  config.width = fields.integer_or("width", config.width, 1, kMaxWidth);
}

void read_norm(const Fields& fields, ResNetConfig& config) {
  if (fields.has("norm")) {
    config.norm = kind(fields, "norm", kNorms);
  }
  config.groups = fields.integer_or("groups", config.groups, 1, kMaxWidth);
  if (config.norm == NormKind::kGroup && config.width % config.groups != 0) {
    fields.fail("groups", "must divide width, here " + std::to_string(config.width) + ", and is " +
                              std::to_string(config.groups) + "; " +
                              std::to_string(std::gcd(config.groups, config.width)) + " does");
  }
  config.ghost_batch = fields.integer_or("ghost_batch", 0, 0, kMaxGhostBatch);
  config.norm_eps = positive(fields, "norm_eps", config.norm_eps);
  config.norm_momentum = positive(fields, "norm_momentum", config.norm_momentum);
  if (config.norm_momentum > 1) {
    fields.fail("norm_momentum", "must lie above 0 and be at most 1");
  }
}

std::vector<double> per_channel(const Fields& fields, std::string_view key, std::int64_t channels) {
  if (!fields.has(key)) {
    return {};
  }
  auto values = fields.numbers(key);
  if (std::ssize(values) != channels) {
    fields.fail(key, "must list a number for each of the " + std::to_string(channels) +
                         " channels (in_channels)");
  }
  return values;
}

void read_pictures(const Fields& fields, ResNetConfig& config) {
  config.in_channels = fields.integer_or("in_channels", config.in_channels, 1, kMaxChannels);
  config.classes = fields.integer("classes", 1, kMaxClasses);
  if (fields.has("labels")) {
    config.labels = fields.texts("labels");
    if (std::ssize(config.labels) != config.classes) {
      fields.fail("labels", "must name each of the " + std::to_string(config.classes) +
                                " classes; it has " + std::to_string(config.labels.size()));
    }
  }
  if (fields.has("image_size")) {
    const auto size = fields.integers("image_size", 1, kMaxSide);
    if (size.size() != 2) {
      fields.fail("image_size", "must be [height, width]");
    }
    config.image_size = {size[0], size[1]};
  }
  config.image_mean = per_channel(fields, "image_mean", config.in_channels);
  config.image_std = per_channel(fields, "image_std", config.in_channels);
  if (!std::ranges::all_of(config.image_std, [](double value) { return value > 0; })) {
    fields.fail("image_std", "must be above zero: pixels are divided by it");
  }
}

}  // namespace

ResNetConfig parse_resnet_config(const std::string& text, const std::string& where) {
  const auto object = io::parse_json(text, where);
  const Fields fields(object, where);
  refuse_foreign(fields);
  ResNetConfig config;
  config.block = kind(fields, "block", kBlocks);
  read_layers(fields, config);
  read_norm(fields, config);
  if (fields.has("stem")) {
    config.stem = kind(fields, "stem", kStems);
  }
  read_pictures(fields, config);
  return config;
}

ResNetConfig read_resnet_config(const std::filesystem::path& config_json) {
  constexpr std::size_t kMaxBytes = 64 << 20;  // names of many classes
  return parse_resnet_config(io::read_file(config_json, kMaxBytes), config_json.string());
}

std::string resnet_config_json(const ResNetConfig& config) {
  nlohmann::ordered_json json = {{"model_type", "resnet"},
                                 {"architectures", {"ResNet"}},
                                 {"block", name_of(config.block, kBlocks)},
                                 {"layers", config.layers},
                                 {"width", config.width},
                                 {"norm", name_of(config.norm, kNorms)},
                                 {"groups", config.groups},
                                 {"ghost_batch", config.ghost_batch},
                                 {"norm_eps", config.norm_eps},
                                 {"norm_momentum", config.norm_momentum},
                                 {"stem", name_of(config.stem, kStems)},
                                 {"in_channels", config.in_channels},
                                 {"classes", config.classes}};
  if (!config.labels.empty()) {
    json["labels"] = config.labels;
  }
  if (config.image_size[0] > 0) {
    json["image_size"] = config.image_size;
  }
  if (!config.image_mean.empty()) {
    json["image_mean"] = config.image_mean;
  }
  if (!config.image_std.empty()) {
    json["image_std"] = config.image_std;
  }
  return json.dump(2) + "\n";
}

}  // namespace lorascale::models::vision
