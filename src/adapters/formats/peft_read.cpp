// Reading an adapter folder of unknown origin: only what can be applied faithfully passes.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <nlohmann/json.hpp>

#include "adapters/formats/factor.hpp"
#include "adapters/formats/ia3.hpp"
#include "adapters/formats/peft.hpp"
#include "adapters/formats/peft_patterns.hpp"
#include "base/error.hpp"
#include "io/safetensors.hpp"
#include "io/strict_json.hpp"
#include "nn/dora.hpp"
#include "nn/dtypes.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::adapters {
namespace {

LoraSettings settings_of(const io::JsonObject& config) {
  if (config.boolean_or("fan_in_fan_out", false)) {
    config.fail("fan_in_fan_out", "is true, which is not supported");
  }
  if (config.text_or("bias", "none") != "none") {
    config.fail("bias", "must be none");
  }
  if (config.has("modules_to_save") && !config.raw("modules_to_save").empty()) {
    config.fail("modules_to_save",
                "is set, and adapters that replace whole modules cannot be read; merge it into its "
                "base with peft (merge_and_unload, save_pretrained) and take the result as the "
                "base model");
  }
  // Each makes the layer compute something else than W x + s B A x.
  for (const char* key :
       {"alora_invocation_tokens", "use_qalora", "use_bdlora", "lora_bias", "layer_replication",
        "target_parameters", "trainable_token_indices", "velora_config", "monteclora_config"}) {
    const auto set = config.has(key) ? config.raw(key) : nlohmann::json(nullptr);
    if (!set.is_null() && set != false && !(set.is_structured() && set.empty())) {
      config.fail(key, "is set, which is not supported");
    }
  }
  // These change the base model when the adapter is loaded.
  if (config.has("init_lora_weights") && config.raw("init_lora_weights").is_string()) {
    std::string init = config.text("init_lora_weights");
    std::ranges::transform(init, init.begin(), [](unsigned char c) { return std::tolower(c); });
    for (const char* known : {"pissa", "olora", "corda", "loftq", "lora_ga"}) {
      if (init.starts_with(known)) {
        config.fail("init_lora_weights",
                    "is " + init +
                        ", which goes with a base model changed by it; convert the adapter with "
                        "peft (path_initial_model_for_weight_conversion) first");
      }
    }
  }
  LoraSettings settings;
  const bool narrowed = std::ranges::any_of(
      std::array{"layers_to_transform", "layers_pattern", "exclude_modules"}, [&](const char* key) {
        return config.has(key) && !config.raw(key).is_null() && !config.raw(key).empty();
      });
  if (!narrowed && config.has("target_modules") && config.raw("target_modules").is_array()) {
    settings.targets = config.texts("target_modules");
  }
  settings.rank = config.integer("r", 1, 1 << 20);
  settings.alpha = config.number_or("lora_alpha", 8.0);
  settings.dropout = config.number_or("lora_dropout", 0.0);
  settings.rslora = config.boolean_or("use_rslora", false);
  settings.dora = config.boolean_or("use_dora", false);
  return settings;
}

// A number of the file's metadata that only this program writes; -1 where there is none.
std::int64_t answer_end_of(const io::SafetensorsFile& file) {
  const auto found = file.metadata().find(kAnswerEnd);
  if (found == file.metadata().end()) {
    return -1;
  }
  std::int64_t id = -1;
  const char* end = found->second.data() + found->second.size();
  return std::from_chars(found->second.data(), end, id).ptr == end && id >= 0 ? id : -1;
}

}  // namespace

std::vector<std::int64_t> PeftModule::weight_sizes() const {
  auto sizes = a.sizes().vec();
  sizes[0] = b.size(0);
  return sizes;
}

nn::LoraFactors PeftModule::factors() const {
  nn::LoraFactors factors;
  factors.a = a;
  factors.b = b;
  factors.scale = scale;
  return factors;
}

at::Tensor PeftModule::low_rank_change() const {
  return at::mm(b.flatten(1), a.flatten(1)).mul_(scale).view(weight_sizes());
}

at::Tensor PeftModule::weight_change(const at::Tensor& weight) const {
  if (scaling) {
    return nn::scaling_change(weight, *scaling);
  }
  return magnitude.defined()
             ? nn::dora_change(weight.to(at::kCPU).reshape(weight_sizes()), factors(), magnitude)
             : low_rank_change();
}

bool PeftModule::equals(const PeftModule& other) const {
  if (scaling || other.scaling) {
    return scaling && other.scaling && scaling->of_inputs == other.scaling->of_inputs &&
           scaling->change.equal(other.scaling->change);
  }
  const bool same_lengths = magnitude.defined() == other.magnitude.defined() &&
                            (!magnitude.defined() || magnitude.equal(other.magnitude));
  return same_lengths && low_rank_change().equal(other.low_rank_change());
}

PeftAdapter read_peft_adapter(const std::filesystem::path& folder) {
  const std::string where = (folder / kPeftConfig).string();
  const auto json = io::read_json_file(folder / kPeftConfig);
  const io::JsonObject config(json, where);
  PeftAdapter adapter;
  adapter.folder = folder;
  adapter.base_model = config.text_or("base_model_name_or_path", "");
  const auto type = config.text("peft_type");
  if (type == "IA3") {
    const io::SafetensorsFile file(folder / kPeftWeights);
    adapter.answer_end_id = answer_end_of(file);
    read_peft_ia3(config, file, adapter);
    return adapter;
  }
  if (type != "LORA") {
    config.fail("peft_type", "is neither LORA nor IA3; other adapters cannot be read");
  }
  adapter.settings = settings_of(config);
  const auto ordered = io::read_ordered_json_file(folder / kPeftConfig);
  const PeftPatterns ranks(ordered, "rank_pattern", where);
  const PeftPatterns alphas(ordered, "alpha_pattern", where);
  const io::SafetensorsFile file(folder / kPeftWeights);
  adapter.answer_end_id = answer_end_of(file);
  const std::string suffix_a = lora_a_name("");
  const std::string suffix_b = lora_b_name("");
  const std::string suffix_dora = dora_name("");
  for (const auto& info : file.tensors()) {
    const bool is_a = info.name.starts_with(kPeftPrefix) && info.name.ends_with(suffix_a);
    const bool is_b = info.name.starts_with(kPeftPrefix) && info.name.ends_with(suffix_b);
    const bool is_dora = adapter.settings.dora && info.name.starts_with(kPeftPrefix) &&
                         info.name.ends_with(suffix_dora);
    if (!is_a && !is_b && !is_dora) {
      throw_bad_input(file.path().string() + ": tensor '" + info.name +
                      "' is no lora_A or lora_B weight of a linear layer or convolution");
    }
    const auto suffix = is_dora ? suffix_dora.size() : suffix_a.size();
    auto& module = adapter.modules[info.name.substr(
        kPeftPrefix.size(), info.name.size() - kPeftPrefix.size() - suffix)];
    (is_a   ? module.a
     : is_b ? module.b
            : module.magnitude) =
        is_dora ? read_vector(file, info.name) : read_factor(file, info.name);
  }
  for (auto& [name, module] : adapter.modules) {
    if (!module.a.defined() || !module.b.defined() || module.a.dim() != module.b.dim() ||
        module.a.size(0) != module.b.size(1) || module.b.flatten(1).size(1) != module.b.size(1)) {
      throw_bad_input(file.path().string() + ": lora_A and lora_B of " + name +
                      " do not belong together");
    }
    if (adapter.settings.dora &&
        (!module.magnitude.defined() || module.magnitude.size(0) != module.b.size(0))) {
      throw_bad_input(file.path().string() + ": " + name + " has no lora_magnitude_vector of " +
                      std::to_string(module.b.size(0)) + " numbers, and " + where +
                      " says use_dora");
    }
    const double rank = ranks.of(name, static_cast<double>(adapter.settings.rank));
    if (static_cast<double>(module.a.size(0)) != rank) {
      throw_bad_input(fmt::format("{}: {} has rank {} where {} says {}", file.path().string(), name,
                                  module.a.size(0), where, rank));
    }
    module.alpha = alphas.of(name, adapter.settings.alpha);
    module.scale = adapter.settings.scale(module.a.size(0), module.alpha);
  }
  if (adapter.modules.empty()) {
    throw_bad_input(file.path().string() + ": holds no LoRA weights");
  }
  return adapter;
}

}  // namespace lorascale::adapters
