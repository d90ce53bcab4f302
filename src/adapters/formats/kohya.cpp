#include "adapters/formats/kohya.hpp"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "adapters/formats/ia3.hpp"
#include "adapters/formats/kohya_layers.hpp"
#include "adapters/formats/kohya_tags.hpp"
#include "adapters/formats/part_names.hpp"
#include "adapters/formats/site_shape.hpp"
#include "base/error.hpp"
#include "base/units.hpp"
#include "io/safetensors.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::adapters {
namespace {

// CPU fp32, in the shapes of the file.
KohyaLayer layer_of(const LoraModule& module, const LoraViews& views) {
  // These files know alpha / rank alone.
  return {as_stored(module.site, views.a), as_stored(module.site, views.b),
          module.scale * static_cast<double>(module.rank), views.magnitude};
}

io::SafetensorsMetadata metadata_of(const LoraSettings& settings, const ExportContext& context) {
  io::SafetensorsMetadata metadata = {
      {"format", "pt"},
      {"ss_network_module", "networks.lora"},
      {"ss_network_dim", std::to_string(settings.rank)},
      {"ss_network_alpha", kohya_number(settings.alpha)},
  };
  for (const auto& [key, value] : context.metadata) {
    metadata.emplace(key, value);
  }
  return metadata;
}

PeftModule read_module(const io::SafetensorsFile& file, const std::string& name,
                       const nn::Site& site) {
  const auto layer = read_kohya_layer(file, name);
  return fitted({layer.a, layer.b, layer.alpha, layer.alpha / static_cast<double>(layer.a.size(0)),
                 layer.magnitude},
                site, file.path().string() + ": " + io::in_quotes(name));
}

struct Layer {
  std::int64_t rank = 0, parameters = 0;
  double alpha = 0, norm = 0;
};

// By the names in the file, whatever model they are of.
std::map<std::string, Layer> layers_of(const io::SafetensorsFile& file) {
  std::map<std::string, Layer> layers;
  for (const auto& tensor : file.tensors()) {
    if (!tensor.name.ends_with(kKohyaDown)) {
      continue;
    }
    const auto name = tensor.name.substr(0, tensor.name.size() - kKohyaDown.size());
    const auto factors = read_kohya_layer(file, name, /*with_magnitude=*/false);
    const at::Tensor a = factors.a.flatten(1), b = factors.b.flatten(1);
    Layer layer{a.size(0), a.numel() + b.numel(), factors.alpha, 0};
    const auto square = product_square({a, b}).item<double>();
    layer.norm = layer.alpha / static_cast<double>(layer.rank) * std::sqrt(std::max(0.0, square));
    layers.emplace(name, layer);
  }
  return layers;
}

std::set<std::int64_t> ranks_of(const std::map<std::string, Layer>& layers) {
  std::set<std::int64_t> ranks;
  for (const auto& [name, layer] : layers) {
    ranks.insert(layer.rank);
  }
  return ranks;
}

std::string summary_of(const std::map<std::string, Layer>& layers) {
  return fmt::format("LoRA rank {} on {}", fmt::join(ranks_of(layers), ", "),
                     counted(std::ssize(layers), "layer"));
}

// What it learnt from, for a prompt.
std::string tag_line(const io::SafetensorsFile& file) {
  constexpr std::size_t kShownTags = 12;
  const auto found = file.metadata().find("ss_tag_frequency");
  if (found == file.metadata().end()) {
    return {};
  }
  std::vector<std::string> tags;
  for (const auto& [tag, times] : most_used_tags(found->second, kShownTags)) {
    tags.push_back(fmt::format("{} {}", io::in_quotes(tag), times));
  }
  return tags.empty() ? std::string() : fmt::format("most used tags: {}\n", fmt::join(tags, ", "));
}

}  // namespace

void write_kohya_adapter(const std::filesystem::path& file, const std::vector<LoraModule>& modules,
                         const LoraSettings& settings, const TrainableParameters& parameters,
                         const ExportContext& context) {
  const at::Tensor master = parameters.master().cpu();
  std::map<std::string, KohyaLayer> layers;
  std::vector<nn::Site> sites;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    sites.push_back(modules[i].site);
    layers.emplace(sites[i].kohya_name,
                   layer_of(modules[i], views_of(parameters, master, modules.size(), i)));
  }
  LS_ASSERT(layers.size() == modules.size());
  write_kohya_layers(file, layers, at::kFloat, metadata_of(settings, context));
  const auto written = read_kohya_adapter(file, sites);
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto& site = sites[i];
    const auto& layer = layers.at(site.kohya_name);
    const PeftModule trained{in_shape_of(site, layer.a), in_shape_of(site, layer.b),
                             modules[i].alpha, modules[i].scale, layer.magnitude};
    if (!written.modules.at(site.name)
             .weight_change(site.weight)
             .allclose(trained.weight_change(site.weight), 1e-6, 0)) {
      throw Error(ExitCode::kInternal,
                  file.string() + ": the written adapter differs from the trained one in " +
                      site.name + "; do not use it");
    }
  }
}

std::optional<std::filesystem::path> kohya_file(const std::filesystem::path& path) {
  std::error_code unknown;
  for (const auto& file : {path, path / kKohyaFile, path / "adapter" / kKohyaFile}) {
    if (file.extension() == ".safetensors" && std::filesystem::is_regular_file(file, unknown)) {
      return file;
    }
  }
  return std::nullopt;
}

bool is_kohya_adapter(const std::filesystem::path& file) {
  const io::SafetensorsFile opened(file);
  return is_kohya_ia3(opened) || std::ranges::any_of(opened.tensors(), [](const auto& tensor) {
           return tensor.name.ends_with(kKohyaDown);
         });
}

std::set<std::int64_t> ranks_of_kohya_adapter(const std::filesystem::path& file) {
  return ranks_of(layers_of(io::SafetensorsFile(file)));
}

bool is_kohya_dora(const std::filesystem::path& file) {
  const io::SafetensorsFile opened(file);
  return std::ranges::any_of(opened.tensors(),
                             [](const auto& tensor) { return tensor.name.ends_with(kKohyaDora); });
}

std::string summarise_kohya_adapter(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  return is_kohya_ia3(file) ? summarise_ia3(read_kohya_ia3(file).size())
                            : summary_of(layers_of(file));
}

std::string describe_kohya_adapter(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  const bool ia3 = is_kohya_ia3(file);
  const auto modules = ia3 ? read_kohya_ia3(file) : std::map<std::string, PeftModule>{};
  const auto layers = layers_of(file);
  const auto said = [&](const std::string& key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string("?") : io::in_quotes(found->second);
  };
  auto text = fmt::format("{} for {} ({}): {}\n",
                          ia3 ? "file of LyCORIS' form" : "LoRA file of sd-scripts' form",
                          said("ss_base_model_version"), said("ss_sd_model_name"),
                          ia3 ? summarise_ia3(modules.size()) : summary_of(layers));
  text += tag_line(file);
  if (ia3) {
    return text + describe_ia3(modules);
  }
  std::int64_t parameters = 0;
  for (const auto& [name, layer] : layers) {
    parameters += layer.parameters;
    text += fmt::format("  {:<72} rank {:<4} alpha {:<6g} |dW| {:.4g}\n", name, layer.rank,
                        layer.alpha, layer.norm);
  }
  return text + fmt::format("{} parameters\n", parameters);
}

PeftAdapter read_kohya_adapter(const std::filesystem::path& path,
                               const std::vector<nn::Site>& sites) {
  const io::SafetensorsFile file(path);
  std::map<std::string, const nn::Site*> by_name;
  for (const auto& site : sites) {
    by_name.emplace(site.kohya_name, &site);
  }
  PeftAdapter adapter;
  adapter.folder = path;
  const auto site_of = [&](const std::string& name) -> const nn::Site& {
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      throw_bad_input(path.string() + ": " + io::in_quotes(name) +
                      " is no layer of this model that takes an adapter; was it made for another "
                      "kind of model?");
    }
    return *found->second;
  };
  if (is_kohya_ia3(file)) {
    adapter.ia3 = true;
    for (auto& [name, module] : read_kohya_ia3(file)) {
      const auto& site = site_of(name);
      adapter.modules.emplace(
          site.name, fitted(std::move(module), site, path.string() + ": " + io::in_quotes(name)));
    }
    return adapter;
  }
  for (const auto& name : kohya_layer_names(file)) {
    const auto& site = site_of(name);
    auto& module = adapter.modules.emplace(site.name, read_module(file, name, site)).first->second;
    adapter.settings.dora = adapter.settings.dora || module.magnitude.defined();
  }
  require_one_kind(adapter);
  return adapter;
}

}  // namespace lorascale::adapters
