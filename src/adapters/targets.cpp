#include "adapters/targets.hpp"

#include <utility>

#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

constexpr std::string_view kWholeNames =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";

bool is_plain_name(const std::string& text) {
  return text.find_first_not_of(kWholeNames) == std::string::npos;
}

// `key` is the setting that the expression comes from.
[[noreturn]] void refuse(const std::string& key, const std::string& text,
                         const PatternError& error) {
  throw_bad_config(key + ": '" + text + "' " + error.what());
}

// Where the last part of a name begins; a number alone ("downsample.0") names nothing.
std::size_t ending_of(const std::string& name) {
  const auto dot = name.rfind('.');
  const bool number = name.find_first_not_of("0123456789", dot + 1) == std::string::npos;
  return number && dot != std::string::npos && dot > 0 ? name.rfind('.', dot - 1) + 1 : dot + 1;
}

// Last parts of all names, for messages.
std::string known_endings(const std::vector<nn::Site>& sites) {
  std::string list;
  std::set<std::string> seen;
  for (const auto& site : sites) {
    const auto ending = site.name.substr(ending_of(site.name));
    if (seen.insert(ending).second) {
      list += (list.empty() ? "" : ", ") + ending;
    }
  }
  return list;
}

}  // namespace

bool target_names(const std::string& target, const std::string& layer) {
  return layer == target || layer.ends_with("." + target);
}

Pattern layer_pattern(const std::string& key) {
  return Pattern(key, "(.*\\.)?(", ")");
}

std::string key_of_layer(const std::string& layer) {
  return (layer.find('.') == std::string::npos ? "^" : "") + layer;
}

std::string expression_of_layers(const std::set<std::string>& layers) {
  std::string expression;
  for (const auto& layer : layers) {
    expression += expression.empty() ? "" : "|";
    for (const char c : layer) {
      expression += c == '.' ? std::string("\\.") : std::string(1, c);
    }
  }
  return expression;
}

Targets::Targets(const std::vector<std::string>& targets)
    : targets_(targets), used_(targets.size(), false) {
  if (targets.size() != 1) {
    return;
  }
  if (targets[0] == "all-linear" || targets[0] == "all-layers") {
    every_ = targets[0] == "all-linear" ? Every::kLinear : Every::kSite;
  } else if (!is_plain_name(targets[0])) {
    try {
      pattern_.emplace(targets[0]);
    } catch (const PatternError& error) {
      refuse("adapter.targets", targets[0], error);
    }
  }
}

bool Targets::matches(const std::string& layer) {
  if (pattern_) {
    try {
      return pattern_->matches_whole(layer) && (used_[0] = true);
    } catch (const PatternError& error) {
      refuse("adapter.targets", targets_[0], error);
    }
  }
  bool any = false;
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    if (target_names(targets_[i], layer)) {
      used_[i] = any = true;
    }
  }
  return any;
}

bool Targets::names(const nn::Site& site) {
  if (every_ == Every::kNone) {
    return matches(site.name);
  }
  const bool named = every_ == Every::kSite || site.kind == nn::SiteKind::kLinear;
  used_[0] = used_[0] || named;
  return named;
}

void Targets::require_all_used(const AdaptedModel& model) {
  for (const auto& part : model.without_adapter) {
    if (every_ == Every::kNone && matches(part)) {
      throw_bad_config(
          "adapter.targets names " + part +
          ", which takes no adapter yet; leave it out (all-linear, as in peft, means all other "
          "linear layers), or train all weights with adapter.type: full");
    }
  }
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    if (!used_[i]) {
      throw_bad_config("adapter.targets: '" + targets_[i] +
                       "' matches no layer of this model that takes an adapter; there are " +
                       known_endings(model.sites) + ", or write all-linear or all-layers");
    }
  }
}

template <typename T>
Exceptions<T>::Exceptions(const std::map<std::string, T>& values, std::string key)
    : key_(std::move(key)) {
  for (const auto& [text, value] : values) {
    try {
      entries_.push_back({text, layer_pattern(text), value});
    } catch (const PatternError& error) {
      refuse(key_, text, error);
    }
  }
}

template <typename T>
T Exceptions<T>::of(const std::string& layer, T usual) {
  Entry* found = nullptr;
  for (auto& entry : entries_) {
    try {
      if (!entry.pattern.matches_whole(layer)) {
        continue;
      }
    } catch (const PatternError& error) {
      refuse(key_, entry.text, error);
    }
    if (found != nullptr && found->value != entry.value) {
      throw_bad_config(key_ + ": '" + found->text + "' and '" + entry.text + "' both match " +
                       layer + ", with different values; let one of them match it");
    }
    found = found != nullptr ? found : &entry;
    entry.used = true;
  }
  return found != nullptr ? found->value : usual;
}

template <typename T>
void Exceptions<T>::require_all_used() const {
  for (const auto& entry : entries_) {
    if (!entry.used) {
      throw_bad_config(key_ + ": '" + entry.text +
                       "' matches none of the adapted layers; remove it or adapt the layer through "
                       "adapter.targets");
    }
  }
}

template class Exceptions<std::int64_t>;
template class Exceptions<double>;

}  // namespace lorascale::adapters
