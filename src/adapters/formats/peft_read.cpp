#include "adapters/peft_format.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <utility>

#include "adapters/base_name.hpp"
#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors.hpp"
#include "io/safetensors_writer.hpp"
#include "io/strict_json.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::adapters {
namespace {

constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kWeightsName = "adapter_model.safetensors";
constexpr const char* kAnswerEnd = "answer_end_id";
const std::string kPrefix = "base_model.model.";

std::string last_part(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}

// Short names where they mean exactly the adapted modules, full paths otherwise.
std::vector<std::string> names_of_targets(const std::vector<LoraModule>& modules,
                                          const std::vector<nn::LinearGroup*>& groups) {
  std::set<std::string> adapted, suffixes;
  for (const auto& module : modules) {
    adapted.insert(module.name);
    suffixes.insert(last_part(module.name));
  }
  for (const auto* group : groups) {
    for (const auto& member : group->members) {
      if (suffixes.contains(last_part(member.name)) && !adapted.contains(member.name)) {
        return {adapted.begin(), adapted.end()};
      }
    }
  }
  return {suffixes.begin(), suffixes.end()};
}

nlohmann::json config_json(const std::vector<LoraModule>& modules,
                           const std::vector<nn::LinearGroup*>& groups,
                           const LoraSettings& settings, const BaseModel& base) {
  nlohmann::json ranks = nlohmann::json::object();
  nlohmann::json alphas = nlohmann::json::object();
  for (const auto& module : modules) {
    if (module.rank != settings.rank) {
      ranks[module.name] = module.rank;
    }
    if (module.alpha != settings.alpha) {
      alphas[module.name] = module.alpha;
    }
  }
  const auto number = [](double value) -> nlohmann::json {
    const auto whole = static_cast<std::int64_t>(value);
    return static_cast<double>(whole) == value ? nlohmann::json(whole) : nlohmann::json(value);
  };
  return {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", base.name},
      {"revision", base.revision.empty() ? nlohmann::json(nullptr) : nlohmann::json(base.revision)},
      {"auto_mapping", nullptr},
      {"inference_mode", true},
      {"r", settings.rank},
      {"lora_alpha", number(settings.alpha)},
      {"lora_dropout", settings.dropout},
      {"target_modules", names_of_targets(modules, groups)},
      {"modules_to_save", nullptr},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"init_lora_weights", true},
      {"use_rslora", settings.rslora},
      {"use_dora", false},
      {"rank_pattern", ranks},
      {"alpha_pattern", alphas},
      {"layers_to_transform", nullptr},
      {"layers_pattern", nullptr}};
}

at::Tensor delta(const at::Tensor& b, const at::Tensor& a, double scale) {
  return at::mm(b, a).mul_(scale);
}

struct ModuleTensors {
  at::Tensor a, b;  // CPU fp32, contiguous
};

std::vector<ModuleTensors> host_tensors(const std::vector<LoraModule>& modules,
                                        const TrainableParameters& parameters) {
  LS_ASSERT(parameters.entries().size() == 2 * modules.size());
  const at::Tensor master = parameters.master().cpu();
  std::vector<ModuleTensors> tensors;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    tensors.push_back(
        {TrainableParameters::view(master, parameters.entries()[i]),
         TrainableParameters::view(master, parameters.entries()[modules.size() + i])});
  }
  return tensors;
}

void check_export(const std::filesystem::path& folder, const std::vector<LoraModule>& modules,
                  const std::vector<ModuleTensors>& tensors) {
  const PeftAdapter written = read_peft_adapter(folder);
  LS_ASSERT(written.modules.size() == modules.size());
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto found = written.modules.find(modules[i].name);
    const bool same = found != written.modules.end() &&
                      delta(found->second.b, found->second.a, found->second.scale)
                          .equal(delta(tensors[i].b, tensors[i].a, modules[i].scale));
    if (!same) {
      throw Error(ExitCode::kInternal,
                  folder.string() + ": the written adapter differs from the trained one in " +
                      modules[i].name + "; do not use it");
    }
  }
}

at::Tensor read_tensor(const io::SafetensorsFile& file, const std::string& key) {
  const auto& info = file.at(key);
  at::ScalarType type = at::kFloat;
  switch (info.dtype) {
    case io::Dtype::kF32:
      break;
    case io::Dtype::kF16:
      type = at::kHalf;
      break;
    case io::Dtype::kBF16:
      type = at::kBFloat16;
      break;
    default:
      throw_bad_input(file.path().string() + ": " + key + " has type " +
                      std::string(io::dtype_name(info.dtype)) + "; adapters are F32, F16 or BF16");
  }
  if (info.shape.size() != 2) {
    throw_bad_input(file.path().string() + ": " + key + " must be a matrix");
  }
  at::Tensor tensor = at::empty(info.shape, at::TensorOptions().dtype(type));
  file.read(info, nn::writable_bytes(tensor));
  tensor = tensor.to(at::kFloat);
  if (!tensor.isfinite().all().item<bool>()) {
    throw_bad_input(file.path().string() + ": " + key + " holds NaN or infinite values");
  }
  return tensor;
}

LoraSettings settings_of(const io::JsonObject& config) {
  if (config.text("peft_type") != "LORA") {
    config.fail("peft_type", "is not LORA; only LoRA adapters can be read");
  }
  for (const char* key : {"use_dora", "fan_in_fan_out"}) {
    if (config.boolean_or(key, false)) {
      config.fail(key, "is true, which is not supported");
    }
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
  return settings;
}

// rank_pattern or alpha_pattern of a file: the first pattern in its order that matches a module
// counts, as peft matches them: (.*\.)?(pattern)$.
class FilePatterns {
  static constexpr std::size_t kLongestName = 512;
  static constexpr std::ptrdiff_t kMostGroups = 32;

 public:
  FilePatterns(const nlohmann::ordered_json& config, const char* key, const std::string& where) {
    const auto patterns = config.find(key);
    if (patterns == config.end() || patterns->is_null()) {
      return;
    }
    const auto refuse = [&](const std::string& what) {
      throw_bad_input(where + ": " + key + ": " + what);
    };
    if (!patterns->is_object()) {
      refuse("must be a mapping of module names to numbers");
    }
    for (const auto& [pattern, value] : patterns->items()) {
      if (!value.is_number() || !(value.get<double>() > 0)) {
        refuse("the value of '" + pattern + "' is no number above 0");
      }
      // std::regex goes as deep as a pattern is nested, and a text long.
      if (pattern.size() > kLongestName || std::ranges::count(pattern, '(') > kMostGroups) {
        refuse("a pattern is too long or has too many groups");
      }
      try {
        found_.emplace_back(std::regex("(.*\\.)?(" + pattern + ")"), value.get<double>());
      } catch (const std::regex_error&) {
        refuse("'" + pattern + "' is no regular expression that is supported here");
      }
    }
  }

  [[nodiscard]] double of(const std::string& module, double fallback) const {
    if (!found_.empty() && module.size() > kLongestName) {
      throw_bad_input("an adapter has a module name of " + std::to_string(module.size()) +
                      " characters, which no model has; get a fresh copy");
    }
    for (const auto& [pattern, value] : found_) {
      try {
        if (std::regex_match(module, pattern)) {
          return value;
        }
      } catch (const std::regex_error&) {
        throw_bad_input("a rank or alpha pattern of the adapter is too complex");
      }
    }
    return fallback;
  }

 private:
  std::vector<std::pair<std::regex, double>> found_;
};

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

void write_peft_adapter(const std::filesystem::path& folder, const std::vector<LoraModule>& modules,
                        const std::vector<nn::LinearGroup*>& groups, const LoraSettings& settings,
                        const TrainableParameters& parameters,
                        const std::filesystem::path& model_path, std::int64_t answer_end_id) {
  io::create_folders(folder);
  const auto tensors = host_tensors(modules, parameters);
  std::vector<io::TensorToWrite> to_write;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    to_write.push_back({kPrefix + lora_a_name(modules[i].name), io::Dtype::kF32,
                        tensors[i].a.sizes().vec(), nn::bytes_of(tensors[i].a)});
    to_write.push_back({kPrefix + lora_b_name(modules[i].name), io::Dtype::kF32,
                        tensors[i].b.sizes().vec(), nn::bytes_of(tensors[i].b)});
  }
  io::SafetensorsMetadata metadata = {{"format", "pt"}};
  if (answer_end_id >= 0) {
    metadata.emplace(kAnswerEnd, std::to_string(answer_end_id));
  }
  io::write_safetensors(folder / kWeightsName, to_write, metadata);
  io::write_file_atomically(
      folder / kConfigName,
      std::string_view(config_json(modules, groups, settings, base_model_of(model_path)).dump(2) +
                       "\n"));
  check_export(folder, modules, tensors);
}

PeftAdapter read_peft_adapter(const std::filesystem::path& folder) {
  const std::string where = (folder / kConfigName).string();
  const auto json = io::read_json_file(folder / kConfigName);
  const io::JsonObject config(json, where);
  PeftAdapter adapter;
  adapter.folder = folder;
  adapter.settings = settings_of(config);
  adapter.base_model = config.text_or("base_model_name_or_path", "");
  const auto ordered = io::read_ordered_json_file(folder / kConfigName);
  const FilePatterns ranks(ordered, "rank_pattern", where);
  const FilePatterns alphas(ordered, "alpha_pattern", where);
  const io::SafetensorsFile file(folder / kWeightsName);
  adapter.answer_end_id = answer_end_of(file);
  const std::string suffix_a = lora_a_name("");
  const std::string suffix_b = lora_b_name("");
  for (const auto& info : file.tensors()) {
    const bool is_a = info.name.starts_with(kPrefix) && info.name.ends_with(suffix_a);
    const bool is_b = info.name.starts_with(kPrefix) && info.name.ends_with(suffix_b);
    if (!is_a && !is_b) {
      throw_bad_input(file.path().string() + ": tensor '" + info.name +
                      "' is no lora_A or lora_B weight of a linear layer");
    }
    const auto name =
        info.name.substr(kPrefix.size(), info.name.size() - kPrefix.size() - suffix_a.size());
    auto& module = adapter.modules[name];
    (is_a ? module.a : module.b) = read_tensor(file, info.name);
  }
  std::set<std::string> unused;
  for (auto& [name, module] : adapter.modules) {
    if (!module.a.defined() || !module.b.defined() || module.a.size(0) != module.b.size(1)) {
      throw_bad_input(file.path().string() + ": lora_A and lora_B of " + name +
                      " do not belong together");
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

LoraSettings settings_to_go_on(const PeftAdapter& adapter) {
  LoraSettings settings = adapter.settings;
  const auto adapts = [&](const std::string& target) {
    return std::ranges::any_of(
        adapter.modules, [&](const auto& module) { return target_names(target, module.first); });
  };
  std::erase_if(settings.targets, [&](const std::string& target) { return !adapts(target); });
  const bool all_named = std::ranges::all_of(adapter.modules, [&](const auto& module) {
    return std::ranges::any_of(settings.targets, [&](const std::string& target) {
      return target_names(target, module.first);
    });
  });
  if (!all_named) {
    settings.targets.clear();
  }
  for (const auto& [name, module] : adapter.modules) {
    if (!all_named) {
      settings.targets.push_back(name);
    }
    if (module.a.size(0) != settings.rank) {
      settings.rank_pattern.emplace(name, module.a.size(0));
    }
    if (module.alpha != settings.alpha) {
      settings.alpha_pattern.emplace(name, module.alpha);
    }
  }
  return settings;
}

void load_peft_adapter(const PeftAdapter& adapter, const std::vector<LoraModule>& modules,
                       TrainableParameters& parameters) {
  const auto refuse = [&](const std::string& what) {
    throw_bad_config("adapter.init_from " + adapter.folder.string() + ": " + what +
                     "; leave adapter.rank, alpha, targets and their patterns out, and they are "
                     "taken from its " +
                     kConfigName);
  };
  if (adapter.modules.size() != modules.size()) {
    refuse("adapts " + std::to_string(adapter.modules.size()) + " layers, the config " +
           std::to_string(modules.size()));
  }
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto found = adapter.modules.find(modules[i].name);
    if (found == adapter.modules.end()) {
      refuse("has no " + modules[i].name);
    }
    const auto& [a, b, alpha, scale] = found->second;
    at::Tensor to_a = TrainableParameters::view(parameters.master(), parameters.entries()[i]);
    at::Tensor to_b =
        TrainableParameters::view(parameters.master(), parameters.entries()[modules.size() + i]);
    if (a.size(0) != to_a.size(0)) {
      refuse(modules[i].name + " has rank " + std::to_string(a.size(0)) + " there");
    }
    if (a.sizes() != to_a.sizes() || b.sizes() != to_b.sizes()) {
      throw_bad_input("adapter.init_from " + adapter.folder.string() + ": " + modules[i].name +
                      " does not fit this model's shape; it was made for '" + adapter.base_model +
                      "'");
    }
    if (std::abs(scale - modules[i].scale) > 1e-12 * std::abs(scale)) {
      refuse(modules[i].name + " is scaled by " + std::to_string(scale) + " there, by " +
             std::to_string(modules[i].scale) + " here");
    }
    to_a.copy_(a);
    to_b.copy_(b);
  }
  parameters.refresh();
}

void merge_into_weights(const PeftAdapter& adapter, const std::vector<nn::LinearGroup*>& groups) {
  std::size_t merged = 0;
  for (const auto* group : groups) {
    for (std::size_t member = 0; member < group->members.size(); ++member) {
      const auto found = adapter.modules.find(group->members[member].name);
      if (found == adapter.modules.end()) {
        continue;
      }
      at::Tensor weight = group->member_rows(group->weight, member);
      const auto& module = found->second;
      if (module.b.size(0) != weight.size(0) || module.a.size(1) != weight.size(1)) {
        throw_bad_input("the adapter's " + found->first + " does not fit this model's shape");
      }
      weight.copy_(weight.to(at::kFloat) +
                   delta(module.b, module.a, module.scale).to(weight.device()));
      ++merged;
    }
  }
  if (merged != adapter.modules.size()) {
    throw_bad_input("the adapter has layers that this model lacks; it was made for '" +
                    adapter.base_model + "'");
  }
}

}  // namespace lorascale::adapters
