#include "adapters/formats/ia3.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "adapters/formats/factor.hpp"
#include "adapters/formats/kohya_layers.hpp"
#include "adapters/formats/peft_files.hpp"
#include "adapters/targets.hpp"
#include "base/error.hpp"
#include "base/pattern.hpp"
#include "base/units.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::adapters {
namespace {

constexpr std::string_view kPeftScaling = ".ia3_l";
constexpr std::string_view kScaling = ".weight", kOnInput = ".on_input";

using Modules = std::map<std::string, PeftModule>;

void require_as_trained(const Modules& written, const std::vector<Ia3Layer>& layers,
                        const std::filesystem::path& where, std::string nn::Site::*name) {
  LS_ASSERT(written.size() == layers.size());
  for (const auto& layer : layers) {
    PeftModule trained;
    trained.scaling = layer.scaling;
    const auto found = written.find(layer.site.*name);
    if (found == written.end() || !found->second.equals(trained)) {
      throw Error(ExitCode::kInternal,
                  where.string() + ": the written adapter differs from the trained one in " +
                      layer.site.name + "; do not use it");
    }
  }
}

// feedforward_modules: names of layers, or one expression for whole names.
class Feedforward {
 public:
  explicit Feedforward(const io::JsonObject& config) {
    if (!config.has("feedforward_modules")) {
      return;
    }
    if (config.raw("feedforward_modules").is_array()) {
      names_ = config.texts("feedforward_modules");
      return;
    }
    try {
      pattern_.emplace(config.text("feedforward_modules"));
    } catch (const PatternError& error) {
      config.fail("feedforward_modules", error.what());
    }
  }
  [[nodiscard]] bool has(const std::string& layer) const {
    return (pattern_ && pattern_->matches_whole(layer)) ||
           std::ranges::any_of(names_, [&](const auto& name) { return target_names(name, layer); });
  }

 private:
  std::vector<std::string> names_;
  std::optional<Pattern> pattern_;
};

at::Tensor change_of(const at::Tensor& l) {
  return l.to(at::kDouble).sub(1).to(at::kFloat);
}

}  // namespace

void read_peft_ia3(const io::JsonObject& config, const io::SafetensorsFile& file,
                   PeftAdapter& adapter) {
  if (config.boolean_or("fan_in_fan_out", false)) {
    config.fail("fan_in_fan_out", "is true, which is not supported");
  }
  if (config.has("modules_to_save") && !config.raw("modules_to_save").empty()) {
    config.fail("modules_to_save",
                "is set, and adapters that replace whole modules cannot be read");
  }
  adapter.ia3 = true;
  const Feedforward feedforward(config);
  for (const auto& info : file.tensors()) {
    if (!info.name.starts_with(kPeftPrefix) || !info.name.ends_with(kPeftScaling)) {
      throw_bad_input(file.path().string() + ": " + io::in_quotes(info.name) +
                      " is no ia3_l of a linear layer or convolution");
    }
    const auto name = info.name.substr(kPeftPrefix.size(),
                                       info.name.size() - kPeftPrefix.size() - kPeftScaling.size());
    const at::Tensor l = read_factor(file, info.name);  // [out, 1], [1, in] or [1, out, 1, 1]
    nn::LayerScaling scaling{change_of(l.flatten()), feedforward.has(name), /*of_bias=*/true};
    const auto across = l.dim() == 2 && !scaling.of_inputs ? l.size(0) : l.size(1);
    if (across != l.numel()) {
      throw_bad_input(fmt::format("{}: {} is no vector of the layer's {}", file.path().string(),
                                  io::in_quotes(info.name),
                                  scaling.of_inputs ? "inputs" : "outputs"));
    }
    adapter.modules[name].scaling = std::move(scaling);
  }
  if (adapter.modules.empty()) {
    throw_bad_input(file.path().string() + ": holds no weights of IA3");
  }
}

void write_peft_ia3(const std::filesystem::path& folder, const std::vector<Ia3Layer>& layers,
                    const std::vector<nn::Site>& sites, const ExportContext& context) {
  FactorsToWrite to_write(at::kFloat);
  std::set<std::string> names, of_inputs;
  for (const auto& [site, scaling] : layers) {
    const at::Tensor l = scaling.change + 1;
    std::vector<std::int64_t> shape = {scaling.of_inputs ? 1 : -1, scaling.of_inputs ? -1 : 1};
    if (site.kind == nn::SiteKind::kConv2d) {
      shape = {1, -1, 1, 1};
    }
    to_write.add(std::string(kPeftPrefix) + site.name + std::string(kPeftScaling), l.view(shape));
    names.insert(site.name);
    if (scaling.of_inputs) {
      of_inputs.insert(site.name);
    }
  }
  auto config = peft_config_of("IA3", context);
  config.update({{"target_modules", peft_names_of(names, sites)},
                 {"feedforward_modules",
                  of_inputs.empty() ? nlohmann::json::array() : peft_names_of(of_inputs, sites)},
                 {"init_ia3_weights", true}});
  write_peft_files(folder, to_write, config, context);
  // l rounds once more than l - 1.
  auto rounded = layers;
  for (auto& layer : rounded) {
    layer.scaling.change = change_of(layer.scaling.change + 1);
  }
  require_as_trained(read_peft_adapter(folder).modules, rounded, folder, &nn::Site::name);
}

bool is_kohya_ia3(const io::SafetensorsFile& file) {
  return std::ranges::any_of(file.tensors(),
                             [](const auto& tensor) { return tensor.name.ends_with(kOnInput); });
}

Modules read_kohya_ia3(const io::SafetensorsFile& file) {
  Modules modules;
  for (const auto& info : file.tensors()) {
    const auto dot = info.name.find('.');
    const auto name = info.name.substr(0, dot);
    const auto part = dot == std::string::npos ? std::string() : info.name.substr(dot);
    const auto* on_input = file.find(name + std::string(kOnInput));
    if ((part != kScaling && part != kOnInput) || on_input == nullptr ||
        file.find(name + std::string(kScaling)) == nullptr) {
      throw_bad_input(file.path().string() + ": " + io::in_quotes(info.name) +
                      " is no part of a whole layer of IA3 (weight and on_input)");
    }
    if (part == kScaling) {
      const at::Tensor change = read_line(file, info.name);
      const double side = read_number(file, on_input->name);
      if (side != 0 && side != 1) {
        throw_bad_input(file.path().string() + ": " + io::in_quotes(on_input->name) +
                        " is neither 0 nor 1");
      }
      modules[name].scaling = nn::LayerScaling{change, side == 1, /*of_bias=*/false};
    }
  }
  return modules;
}

void write_kohya_ia3(const std::filesystem::path& file, const std::vector<Ia3Layer>& layers,
                     const ExportContext& context) {
  FactorsToWrite to_write(at::kFloat);
  for (const auto& [site, scaling] : layers) {
    const bool map = site.stored_as_convolution || site.kind == nn::SiteKind::kConv2d;
    const at::Tensor change = scaling.change;
    to_write.add(site.kohya_name + std::string(kScaling),
                 map ? change.view({1, -1, 1, 1}) : change);
    to_write.add_as_is(site.kohya_name + std::string(kOnInput),
                       at::empty({}, at::kFloat).fill_(scaling.of_inputs ? 1 : 0));
  }
  io::SafetensorsMetadata metadata = {{"format", "pt"},
                                      {"ss_network_module", "lycoris.kohya"},
                                      {"ss_network_args", R"({"algo": "ia3"})"}};
  for (const auto& [key, value] : context.metadata) {
    metadata.emplace(key, value);
  }
  write_kohya_file(file, to_write, std::move(metadata));
  require_as_trained(read_kohya_ia3(io::SafetensorsFile(file)), layers, file,
                     &nn::Site::kohya_name);
}

std::string summarise_ia3(std::size_t layers) {
  return "IA3 on " + counted(static_cast<std::int64_t>(layers), "layer");
}

std::string describe_ia3(const Modules& modules) {
  std::string text;
  std::int64_t parameters = 0;
  for (const auto& [name, module] : modules) {
    const auto& [change, of_inputs, of_bias] = *module.scaling;
    parameters += change.numel();
    text += fmt::format("  {:<72} {:<7} {:<6} mean |l - 1| {:.4g}\n", name,
                        of_inputs ? "inputs" : "outputs", change.numel(),
                        change.abs().mean().item<double>());
  }
  return text + fmt::format("{} parameters\n", parameters);
}

}  // namespace lorascale::adapters
