#include "coordinator/batch/batch_policy.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "base/error.hpp"
#include "coordinator/noise/noise_monitor.hpp"
#include "coordinator/policies/policies.hpp"

namespace lorascale::coordinator {
namespace {

struct Policy {
  BatchPolicyKind kind;
  std::unique_ptr<BatchPolicy> (*make)();
};

constexpr std::array kPolicies = {
    Policy{BatchPolicyKind::kFixed, make_fixed_policy},
    Policy{BatchPolicyKind::kRamp, make_ramp_policy},
    Policy{BatchPolicyKind::kNoiseScale, make_noise_scale_policy},
    Policy{BatchPolicyKind::kSeesaw, make_seesaw_policy},
    Policy{BatchPolicyKind::kGoodput, make_goodput_policy},
};

const Policy& policy_of(BatchPolicyKind kind) {
  for (const Policy& candidate : kPolicies) {
    if (candidate.kind == kind) {
      return candidate;
    }
  }
  LS_ASSERT(!"every policy has a row");
  return kPolicies.front();
}

}  // namespace

bool CriticalBatch::usable() const {
  return known && std::isfinite(samples) && samples > 0 &&
         relative_sd < NoiseTracker::kLargestRelativeSd;
}

std::optional<std::string> lacks_critical_batch(const Recipe& recipe, const std::string& reader) {
  if (recipe.critical_batch > 0 || recipe.noise_horizon_samples > 0) {
    return std::nullopt;
  }
  return fmt::format(
      "{} needs the critical batch, which is neither given nor measured; set noise.horizon to the "
      "samples to average over, such as {}, or give batch.critical",
      reader, usual_noise_horizon(recipe.global_batch));
}

std::unique_ptr<BatchPolicy> make_batch_policy(BatchPolicyKind kind) {
  return policy_of(kind).make();
}

}  // namespace lorascale::coordinator
