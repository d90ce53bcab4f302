#include "adapters/lora.hpp"

#include <ATen/ops/empty.h>

#include <cmath>
#include <regex>
#include <set>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/rng.hpp"

namespace lorascale::adapters {
namespace {

bool is_plain_name(const std::string& text) {
  return text.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") ==
         std::string::npos;
}

std::regex compile(const std::string& pattern, const std::string& where) {
  try {
    return std::regex(pattern, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& error) {
    throw_bad_config(where + ": '" + pattern +
                     "' is not a valid regular expression: " + error.what());
  }
}

// The exception that a pattern makes for a module; patterns match as PEFT's do: (.*\.)?(key)$. PEFT
// takes the first that matches, and a mapping here has no first.
template <typename T>
T patterned(const std::map<std::string, T>& patterns, const std::string& module, T fallback,
            std::set<std::string>& used) {
  const std::pair<const std::string, T>* found = nullptr;
  for (const auto& pattern : patterns) {
    if (!std::regex_match(module, compile("(.*\\.)?(" + pattern.first + ")", "adapter pattern"))) {
      continue;
    }
    if (found != nullptr && found->second != pattern.second) {
      throw_bad_config("adapter patterns '" + found->first + "' and '" + pattern.first +
                       "' both match " + module +
                       ", with different values; let one of them match it");
    }
    found = found != nullptr ? found : &pattern;
    used.insert(pattern.first);
  }
  return found != nullptr ? found->second : fallback;
}

template <typename T>
void check_used(const std::map<std::string, T>& patterns, const std::set<std::string>& used,
                const char* what) {
  for (const auto& [key, value] : patterns) {
    if (!used.contains(key)) {
      throw_bad_config(std::string("adapter.") + what + ": '" + key +
                       "' matches none of the adapted layers; remove it or adapt the layer through "
                       "adapter.targets");
    }
  }
}

// Last parts of all module paths, for messages.
std::string known_suffixes(const std::vector<nn::LinearGroup*>& groups) {
  std::string list;
  std::set<std::string> seen;
  for (const auto* group : groups) {
    for (const auto& member : group->members) {
      const auto suffix = member.name.substr(member.name.rfind('.') + 1);
      if (seen.insert(suffix).second) {
        list += (list.empty() ? "" : ", ") + suffix;
      }
    }
  }
  return list;
}

class TargetMatcher {
 public:
  explicit TargetMatcher(const std::vector<std::string>& targets) : targets_(targets) {
    all_ = targets.size() == 1 && targets[0] == "all-linear";
    if (!all_ && targets.size() == 1 && !is_plain_name(targets[0])) {
      regex_ = compile(targets[0], "adapter.targets");
    }
    hits_.assign(targets.size(), all_);
  }
  bool matches(const std::string& module) {
    if (all_) {
      return true;
    }
    if (regex_) {
      const bool hit = std::regex_match(module, *regex_);
      hits_[0] = hits_[0] || hit;
      return hit;
    }
    bool any = false;
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      if (target_names(targets_[i], module)) {
        hits_[i] = any = true;
      }
    }
    return any;
  }
  void check(const std::vector<nn::LinearGroup*>& groups) {
    for (const char* part : {"lm_head", "model.embed_tokens"}) {
      if (!all_ && matches(part)) {
        throw_bad_config(
            std::string("adapter.targets names ") + part +
            ", which takes no adapter yet; leave it out (all-linear, as in peft, means "
            "all other linear layers), or train all weights with adapter.type: full");
      }
    }
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      if (!hits_[i]) {
        throw_bad_config("adapter.targets: '" + targets_[i] +
                         "' matches no linear layer of this model; there are " +
                         known_suffixes(groups) + ", or write all-linear");
      }
    }
  }

 private:
  const std::vector<std::string>& targets_;
  bool all_ = false;
  std::optional<std::regex> regex_;
  std::vector<bool> hits_;
};

// Uniform in ±1/sqrt(in): what kaiming_uniform(a = sqrt 5) gives. A function of seed, name and
// place only.
void fill_a(const at::Tensor& target, std::int64_t in, std::uint64_t seed,
            const std::string& name) {
  at::Tensor host = at::empty(target.sizes(), at::kFloat);
  float* data = host.data_ptr<float>();
  const auto key = philox_key(mix64(seed) ^ fnv1a64(name));
  const auto bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(in)));
  for (std::int64_t i = 0; i < host.numel(); i += 4) {
    const auto bits =
        philox4x32({static_cast<std::uint32_t>(i / 4), 0, 0, 0x4C6F5241U /* "LoRA" */}, key);
    for (std::int64_t j = i; j < std::min(i + 4, host.numel()); ++j) {
      data[j] = bound * (2.0F * uniform24(bits[static_cast<std::size_t>(j - i)]) - 1.0F);
    }
  }
  target.copy_(host);
}

}  // namespace

bool target_names(const std::string& target, const std::string& module) {
  return module == target || module.ends_with("." + target);
}

double LoraSettings::scale(std::int64_t module_rank, double module_alpha) const {
  const auto r = static_cast<double>(module_rank);
  return module_alpha / (rslora ? std::sqrt(r) : r);
}

std::string lora_a_name(const std::string& module) {
  return module + ".lora_A.weight";
}
std::string lora_b_name(const std::string& module) {
  return module + ".lora_B.weight";
}

std::vector<LoraModule> match_lora_targets(const std::vector<nn::LinearGroup*>& groups,
                                           const LoraSettings& settings) {
  std::vector<LoraModule> modules;
  TargetMatcher matcher(settings.targets);
  std::set<std::string> used_ranks, used_alphas;
  for (auto* group : groups) {
    for (std::size_t member = 0; member < group->members.size(); ++member) {
      const auto& [name, out, first] = group->members[member];
      if (!matcher.matches(name)) {
        continue;
      }
      LoraModule module{name, group->in_features(), out, 0, 0, 0, group, member};
      module.rank = patterned(settings.rank_pattern, name, settings.rank, used_ranks);
      module.alpha = patterned(settings.alpha_pattern, name, settings.alpha, used_alphas);
      module.scale = settings.scale(module.rank, module.alpha);
      if (module.rank < 1 || module.rank > std::min(module.in, module.out)) {
        throw_bad_config("adapter.rank: " + std::to_string(module.rank) + " for " + name +
                         " must lie in 1 to " + std::to_string(std::min(module.in, module.out)));
      }
      modules.push_back(std::move(module));
    }
  }
  matcher.check(groups);
  check_used(settings.rank_pattern, used_ranks, "rank_pattern");
  check_used(settings.alpha_pattern, used_alphas, "alpha_pattern");
  return modules;
}

std::unique_ptr<TrainableParameters> attach_lora(const std::vector<LoraModule>& modules,
                                                 const LoraSettings& settings, std::uint64_t seed) {
  LS_ASSERT(!modules.empty());
  TrainableParameters::GroupSpec a{{"lora_A", 0, 0, 1.0, true}, {}};
  TrainableParameters::GroupSpec b{{"lora_B", 0, 0, settings.lr_ratio, true}, {}};
  for (const auto& module : modules) {
    a.entries.push_back({lora_a_name(module.name), {module.rank, module.in}});
    b.entries.push_back({lora_b_name(module.name), {module.out, module.rank}});
  }
  const auto device = modules.front().group->weight.device();
  const auto dtype = modules.front().group->weight.scalar_type();
  auto parameters =
      std::make_unique<TrainableParameters>(std::vector{std::move(a), std::move(b)}, device);
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // rounded <- master
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto& module = modules[i];
    const auto& entry_a = parameters->entries()[i];
    const auto& entry_b = parameters->entries()[modules.size() + i];
    nn::LoraBranch branch;
    branch.member = module.member;
    branch.rank = module.rank;
    branch.scale = module.scale;
    branch.dropout = settings.dropout;
    branch.module = static_cast<std::uint32_t>(i);
    branch.a = TrainableParameters::view(parameters->master(), entry_a);
    branch.b = TrainableParameters::view(parameters->master(), entry_b);
    branch.grad_a = TrainableParameters::view(parameters->gradient(), entry_a);
    branch.grad_b = TrainableParameters::view(parameters->gradient(), entry_b);
    fill_a(branch.a, module.in, seed, entry_a.name);
    if (dtype != at::kFloat) {
      for (at::Tensor* tensor : {&branch.a, &branch.b}) {
        at::Tensor rounded = at::empty(tensor->sizes(), tensor->options().dtype(dtype));
        copies.emplace_back(rounded, *tensor);
        *tensor = rounded;
      }
    }
    module.group->branches.push_back(std::move(branch));
  }
  if (!copies.empty()) {
    parameters->on_refresh([copies] {
      for (auto [rounded, master] : copies) {
        rounded.copy_(master);
      }
    });
  }
  parameters->refresh();
  return parameters;
}

}  // namespace lorascale::adapters
