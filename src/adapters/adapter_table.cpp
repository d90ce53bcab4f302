// The kinds of adapters, a row each.
#include <algorithm>
#include <array>

#include "adapters/adapter.hpp"
#include "adapters/full/full.hpp"
#include "adapters/ia3/ia3_adapter.hpp"
#include "adapters/lora/lora_adapter.hpp"
#include "adapters/token/token_adapter.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

struct AdapterKind {
  std::string_view type;  // adapter.type
  std::unique_ptr<Adapter> (*make)(const config::AdapterSection&, const AdaptedModel&,
                                   std::uint64_t seed);
  void (*check)(const config::AdapterSection&, const AdaptedModel&);
  // Null where it begins from no adapter.
  std::optional<std::string> (*take_settings)(const std::set<std::string>& given,
                                              config::RunConfig* config);
};

constexpr std::array kKinds = {
    AdapterKind{"lora", make_lora_adapter, check_lora_adapter, take_lora_settings},
    AdapterKind{"ia3", make_ia3_adapter, check_ia3_adapter, take_ia3_settings},
    AdapterKind{"token", make_token_adapter, check_token_adapter, take_token_settings},
    AdapterKind{"full", make_full_adapter,
                [](const config::AdapterSection&, const AdaptedModel&) {}, nullptr},
};

const AdapterKind& kind_of(const config::AdapterSection& section) {
  const auto* found = std::ranges::find(kKinds, section.type, &AdapterKind::type);
  LS_ASSERT(found != kKinds.end());  // the option's own words
  return *found;
}

}  // namespace

std::unique_ptr<Adapter> make_adapter(const config::AdapterSection& section,
                                      const AdaptedModel& model, std::uint64_t seed) {
  return kind_of(section).make(section, model, seed);
}

void check_adapter(const config::AdapterSection& section, const AdaptedModel& model) {
  kind_of(section).check(section, model);
}

std::optional<std::string> take_adapter_settings(const std::set<std::string>& given,
                                                 config::RunConfig* config) {
  const auto take = kind_of(config->adapter).take_settings;
  return take != nullptr ? take(given, config) : std::nullopt;
}

}  // namespace lorascale::adapters
