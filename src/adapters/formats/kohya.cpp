#include "adapters/formats/kohya.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "adapters/formats/factor.hpp"
#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/units.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors.hpp"
#include "io/safetensors_writer.hpp"
#include "io/untrusted_text.hpp"
#include "nn/dtypes.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::adapters {
namespace {

constexpr const char* kDown = ".lora_down.weight";
constexpr const char* kUp = ".lora_up.weight";
constexpr const char* kAlpha = ".alpha";
constexpr const char* kDora = ".dora_scale";
constexpr std::size_t kLegacyStart = 0x100000, kLegacyBytes = 0x10000;

struct Factors {
  at::Tensor a, b, alpha, magnitude;
};

// A linear layer that the base's files hold as a convolution of 1 x 1 is one in these files, too.
at::Tensor as_stored(const at::Tensor& factor, bool convolution) {
  return convolution && factor.dim() == 2 ? factor.view({factor.size(0), factor.size(1), 1, 1})
                                          : factor;
}

// CPU fp32, in the shapes of the file.
std::vector<Factors> factors_of(const std::vector<LoraModule>& modules,
                                const TrainableParameters& parameters) {
  const at::Tensor master = parameters.master().cpu();
  std::vector<Factors> factors;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const bool convolution = modules[i].site.stored_as_convolution;
    // These files know alpha / rank alone.
    const auto alpha = modules[i].scale * static_cast<double>(modules[i].rank);
    const auto views = views_of(parameters, master, modules.size(), i);
    factors.push_back({as_stored(views.a, convolution), as_stored(views.b, convolution),
                       at::empty({}, at::kFloat).fill_(alpha), views.magnitude});
  }
  return factors;
}

std::string number_text(double value) {
  const auto text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

io::SafetensorsMetadata metadata_of(const LoraSettings& settings, const ExportContext& context) {
  io::SafetensorsMetadata metadata = {
      {"format", "pt"},
      {"ss_network_module", "networks.lora"},
      {"ss_network_dim", std::to_string(settings.rank)},
      {"ss_network_alpha", number_text(settings.alpha)},
  };
  for (const auto& [key, value] : context.metadata) {
    metadata.emplace(key, value);
  }
  return metadata;
}

// What interfaces know files by: SHA-256 of all tensors, and of a piece of the file with the
// metadata so far.
void add_hashes(std::span<const io::TensorToWrite> tensors, io::SafetensorsMetadata& metadata) {
  auto of_scripts = metadata;
  std::erase_if(of_scripts, [](const auto& entry) { return !entry.first.starts_with("ss_"); });
  const auto layout = io::lay_out_safetensors(tensors, of_scripts, "adapter");
  Sha256 all, piece;
  std::size_t place = 0;
  const auto add_piece = [&](std::span<const std::byte> bytes) {
    const auto begin = std::clamp(kLegacyStart, place, place + bytes.size());
    const auto end = std::clamp(kLegacyStart + kLegacyBytes, place, place + bytes.size());
    piece.update(bytes.subspan(begin - place, end - begin));
    place += bytes.size();
  };
  add_piece(std::as_bytes(std::span(layout.head)));
  for (const auto& bytes : layout.data) {
    all.update(bytes);
    add_piece(bytes);
  }
  metadata.emplace("sshs_model_hash", all.hex());
  metadata.emplace("sshs_legacy_hash", piece.hex().substr(0, 8));
}

// The number beside the factors; their rank where there is none, or 0, which sd-scripts takes for
// it.
double read_alpha(const io::SafetensorsFile& file, const std::string& name, std::int64_t rank) {
  const auto* info = file.find(name + kAlpha);
  if (info == nullptr) {
    return static_cast<double>(rank);
  }
  const auto type = nn::float_type_stored_as(io::dtype_name(info->dtype));
  at::Tensor alpha = at::empty(info->shape, at::TensorOptions().dtype(type.value_or(at::kFloat)));
  if (!type || alpha.numel() != 1) {
    throw_bad_input(file.path().string() + ": " + io::in_quotes(name) +
                    " has an alpha that is no single number");
  }
  file.read(*info, nn::writable_bytes(alpha));
  const auto value = alpha.item<double>();
  if (!std::isfinite(value)) {
    throw_bad_input(file.path().string() + ": " + io::in_quotes(name) + " has an alpha of " +
                    std::to_string(value));
  }
  return value == 0 ? static_cast<double>(rank) : value;
}

// Both, which must fit together.
void read_factors(const io::SafetensorsFile& file, const std::string& name, at::Tensor& a,
                  at::Tensor& b) {
  for (const auto* key : {kDown, kUp}) {
    if (file.find(name + key) == nullptr) {
      throw_bad_input(file.path().string() + ": " + io::in_quotes(name) + " has no " + (key + 1) +
                      "; the file is incomplete, get it again");
    }
  }
  a = read_factor(file, name + kDown);
  b = read_factor(file, name + kUp);
  if (a.size(0) != b.size(1) || b.numel() != b.size(0) * b.size(1)) {
    throw_bad_input(file.path().string() + ": factors of " + io::in_quotes(name) +
                    " do not fit together; the file is damaged, get it again");
  }
}

// A matrix where the layer is linear, whatever the file made of it.
at::Tensor in_shape_of(const nn::Site& site, const at::Tensor& factor) {
  const bool one_by_one = factor.dim() == 4 && factor.size(2) == 1 && factor.size(3) == 1;
  return site.kind == nn::SiteKind::kLinear && one_by_one
             ? factor.view({factor.size(0), factor.size(1)})
             : factor;
}

PeftModule read_module(const io::SafetensorsFile& file, const std::string& name,
                       const nn::Site& site) {
  PeftModule module;
  read_factors(file, name, module.a, module.b);
  module.a = in_shape_of(site, module.a);
  module.b = in_shape_of(site, module.b);
  if (module.a.dim() != site.weight.dim() || module.b.dim() != site.weight.dim() ||
      module.b.size(0) != site.out_features() ||
      module.a.sizes().slice(1) != site.weight.sizes().slice(1)) {
    throw_bad_input(file.path().string() + ": " + io::in_quotes(name) +
                    " does not fit this model's layer " + site.name +
                    "; was it made for another model?");
  }
  if (file.find(name + kDora) != nullptr) {
    module.magnitude = read_vector(file, name + kDora);
    if (module.magnitude.size(0) != site.out_features()) {
      throw_bad_input(file.path().string() + ": " + io::in_quotes(name) + " has " +
                      std::to_string(module.magnitude.size(0)) + " magnitudes for " +
                      std::to_string(site.out_features()) + " outputs");
    }
  }
  module.alpha = read_alpha(file, name, module.a.size(0));
  module.scale = module.alpha / static_cast<double>(module.a.size(0));
  return module;
}

struct Layer {
  std::int64_t rank = 0, parameters = 0;
  double alpha = 0, norm = 0;
};

// By the names in the file, whatever model they are of.
std::map<std::string, Layer> layers_of(const io::SafetensorsFile& file) {
  std::map<std::string, Layer> layers;
  for (const auto& tensor : file.tensors()) {
    if (!tensor.name.ends_with(kDown)) {
      continue;
    }
    const auto name = tensor.name.substr(0, tensor.name.size() - std::string_view(kDown).size());
    at::Tensor down, up;
    read_factors(file, name, down, up);
    const at::Tensor a = down.flatten(1), b = up.flatten(1);
    Layer layer{down.size(0), down.numel() + up.numel(), read_alpha(file, name, down.size(0)), 0};
    // |B A|^2 = tr(A A' B' B)
    const auto square = (at::mm(a, a.t()) * at::mm(b.t(), b)).sum().item<double>();
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

}  // namespace

void write_kohya_adapter(const std::filesystem::path& file, const std::vector<LoraModule>& modules,
                         const LoraSettings& settings, const TrainableParameters& parameters,
                         const ExportContext& context) {
  io::create_folders(file.parent_path());
  const auto factors = factors_of(modules, parameters);
  std::vector<io::TensorToWrite> tensors;
  std::vector<nn::Site> sites;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto& name = modules[i].site.kohya_name;
    sites.push_back(modules[i].site);
    const auto add = [&](const char* key, const at::Tensor& tensor) {
      tensors.push_back({name + key, io::Dtype::kF32, tensor.sizes().vec(), nn::bytes_of(tensor)});
    };
    add(kDown, factors[i].a);
    add(kUp, factors[i].b);
    add(kAlpha, factors[i].alpha);
    if (factors[i].magnitude.defined()) {
      add(kDora, factors[i].b.dim() == 4 ? factors[i].magnitude.view({1, -1, 1, 1})
                                         : factors[i].magnitude);
    }
  }
  auto metadata = metadata_of(settings, context);
  add_hashes(tensors, metadata);
  io::write_safetensors(file, tensors, metadata);
  const auto written = read_kohya_adapter(file, sites);
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto& found = written.modules.at(sites[i].name);
    const PeftModule trained{in_shape_of(sites[i], factors[i].a),
                             in_shape_of(sites[i], factors[i].b), modules[i].alpha,
                             modules[i].scale, factors[i].magnitude};
    if (!found.weight_change(sites[i].weight)
             .allclose(trained.weight_change(sites[i].weight), 1e-6, 0)) {
      throw Error(ExitCode::kInternal,
                  file.string() + ": the written adapter differs from the trained one in " +
                      sites[i].name + "; do not use it");
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
  return std::ranges::any_of(opened.tensors(),
                             [](const auto& tensor) { return tensor.name.ends_with(kDown); });
}

std::set<std::int64_t> ranks_of_kohya_adapter(const std::filesystem::path& file) {
  return ranks_of(layers_of(io::SafetensorsFile(file)));
}

bool is_kohya_dora(const std::filesystem::path& file) {
  const io::SafetensorsFile opened(file);
  return std::ranges::any_of(opened.tensors(),
                             [](const auto& tensor) { return tensor.name.ends_with(kDora); });
}

std::string summarise_kohya_adapter(const std::filesystem::path& file) {
  return summary_of(layers_of(io::SafetensorsFile(file)));
}

std::string describe_kohya_adapter(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  const auto layers = layers_of(file);
  const auto said = [&](const std::string& key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string("?") : io::in_quotes(found->second);
  };
  auto text =
      fmt::format("LoRA file of sd-scripts' form for {} ({}): {}\n", said("ss_base_model_version"),
                  said("ss_sd_model_name"), summary_of(layers));
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
  std::set<std::string> names;
  for (const auto& tensor : file.tensors()) {
    const auto dot = tensor.name.find('.');
    const auto name = tensor.name.substr(0, dot);
    const auto part = dot == std::string::npos ? std::string() : tensor.name.substr(dot);
    if (part != kDown && part != kUp && part != kAlpha && part != kDora) {
      throw_bad_input(path.string() + ": " + io::in_quotes(tensor.name) +
                      " belongs to a kind of adapter that cannot be read; only LoRA of sd-scripts' "
                      "form (lora_down, lora_up, alpha, dora_scale) can");
    }
    if (!by_name.contains(name)) {
      throw_bad_input(path.string() + ": " + io::in_quotes(name) +
                      " is no layer of this model that takes an adapter; was it made for another "
                      "kind of model?");
    }
    names.insert(name);
  }
  for (const auto& name : names) {
    const auto& site = *by_name.at(name);
    auto& module = adapter.modules.emplace(site.name, read_module(file, name, site)).first->second;
    adapter.settings.dora = adapter.settings.dora || module.magnitude.defined();
  }
  for (const auto& [name, module] : adapter.modules) {
    if (module.magnitude.defined() != adapter.settings.dora) {
      throw_bad_input(path.string() + ": " + name +
                      " has no dora_scale, and others have; such a mixture cannot be read");
    }
  }
  return adapter;
}

}  // namespace lorascale::adapters
