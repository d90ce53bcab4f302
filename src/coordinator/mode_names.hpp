// The names of the coordinator's modes: in configurations, on record and in messages. What has no
// line here can neither be chosen nor be read back.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "coordinator/facts.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

template <class Mode>
using NamedMode = std::pair<std::string_view, Mode>;

template <class Mode>
inline constexpr std::array<NamedMode<Mode>, 0> kModes{};

template <>
inline constexpr auto kModes<ScaleRule> =
    std::to_array<NamedMode<ScaleRule>>({{"none", ScaleRule::kNone},
                                         {"linear", ScaleRule::kLinear},
                                         {"sqrt", ScaleRule::kSqrt},
                                         {"power", ScaleRule::kPower},
                                         {"adascale", ScaleRule::kAdascale}});
template <>
inline constexpr auto kModes<ScheduleKind> =
    std::to_array<NamedMode<ScheduleKind>>({{"constant", ScheduleKind::kConstant},
                                            {"linear", ScheduleKind::kLinear},
                                            {"cosine", ScheduleKind::kCosine},
                                            {"wsd", ScheduleKind::kWsd}});
template <>
inline constexpr auto kModes<BatchPolicyKind> =
    std::to_array<NamedMode<BatchPolicyKind>>({{"fixed", BatchPolicyKind::kFixed},
                                               {"ramp", BatchPolicyKind::kRamp},
                                               {"noise-scale", BatchPolicyKind::kNoiseScale},
                                               {"seesaw", BatchPolicyKind::kSeesaw},
                                               {"goodput", BatchPolicyKind::kGoodput}});
template <>
inline constexpr auto kModes<Leg::Cause> = std::to_array<NamedMode<Leg::Cause>>(
    {{"more", Leg::Cause::kMore}, {"cooldown", Leg::Cause::kCooldown}});
template <>
inline constexpr auto kModes<AsideMemoryFacts::Task> =
    std::to_array<NamedMode<AsideMemoryFacts::Task>>(
        {{"validation", AsideMemoryFacts::Task::kValidation},
         {"sampling", AsideMemoryFacts::Task::kSampling},
         {"recovery", AsideMemoryFacts::Task::kRecovery}});

template <class Mode>
requires(!kModes<Mode>.empty()) std::string_view name_of(Mode mode) {
  for (const auto& [name, named] : kModes<Mode>) {
    if (named == mode) {
      return name;
    }
  }
  return {};
}

template <class Mode>
std::optional<Mode> mode_named(std::string_view text) {
  for (const auto& [name, named] : kModes<Mode>) {
    if (name == text) {
      return named;
    }
  }
  return std::nullopt;
}

}  // namespace lorascale::coordinator
