// rank_pattern and alpha_pattern of an adapter_config.json: the first pattern in the file's order
// that matches a module counts, as in peft.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/pattern.hpp"

namespace lorascale::adapters {

class PeftPatterns {
 public:
  // `config`: the whole file. Error(kBadInput), beginning with `where`, where it cannot be meant.
  PeftPatterns(const nlohmann::ordered_json& config, const char* key, const std::string& where);

  [[nodiscard]] double of(const std::string& module, double usual) const;

 private:
  struct Entry {
    std::string text;
    Pattern pattern;
    double value;
  };
  std::string where_;
  std::vector<Entry> found_;
};

}  // namespace lorascale::adapters
