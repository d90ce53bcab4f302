// Which layers of a model the settings of an adapter name: adapter.targets, and the patterns that
// make exceptions for some of them.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "adapters/adapter.hpp"
#include "base/pattern.hpp"

namespace lorascale::adapters {

// Whether a plain name of adapter.targets ("q_proj", a whole path) names this layer, as PEFT
// matches them.
bool target_names(const std::string& target, const std::string& layer);

// What a key of rank_pattern or alpha_pattern matches, as PEFT has it: (.*\.)?(key). Throws
// PatternError.
Pattern layer_pattern(const std::string& key);

// The key that stands for this layer alone. A path of several parts does by itself; one without a
// dot, as a stem's "conv1", is also how others end.
std::string key_of_layer(const std::string& layer);

// One expression that matches these layers' whole names and nothing else.
std::string expression_of_layers(const std::set<std::string>& layers);

class Targets {
 public:
  // Name endings, or one entry that is all-linear, all-layers or a regular expression for the whole
  // name. Error(kBadConfig) where it is none.
  explicit Targets(const std::vector<std::string>& targets);

  [[nodiscard]] bool names(const nn::Site& site);
  // Error(kBadConfig) where one of them has named none of the model's layers, listing what there
  // is, or names a part that takes no adapter yet. To be asked when every site was.
  void require_all_used(const AdaptedModel& model);

 private:
  enum class Every { kNone, kLinear, kSite };
  bool matches(const std::string& layer);

  std::vector<std::string> targets_;
  Every every_ = Every::kNone;
  std::optional<Pattern> pattern_;
  std::vector<bool> used_;
};

// adapter.rank_pattern or adapter.alpha_pattern.
template <typename T>
class Exceptions {
 public:
  Exceptions(const std::map<std::string, T>& values, std::string key);

  // What holds for a layer: `usual`, or the exception. PEFT takes the first pattern that matches,
  // and a mapping here has no first: two that differ are refused.
  [[nodiscard]] T of(const std::string& layer, T usual);
  void require_all_used() const;

 private:
  struct Entry {
    std::string text;
    Pattern pattern;
    T value;
    bool used = false;
  };
  std::string key_;
  std::vector<Entry> entries_;
};

extern template class Exceptions<std::int64_t>;
extern template class Exceptions<double>;

}  // namespace lorascale::adapters
