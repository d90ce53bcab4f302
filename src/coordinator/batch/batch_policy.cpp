#include "coordinator/batch/batch_policy.hpp"

#include <array>
#include <cmath>

#include "base/error.hpp"
#include "coordinator/noise/noise_monitor.hpp"
#include "coordinator/policies/policies.hpp"

namespace lorascale::coordinator {
namespace {

struct Policy {
  BatchPolicyKind kind;
  std::string_view name;
  std::unique_ptr<BatchPolicy> (*make)();
};

constexpr std::array kPolicies = {
    Policy{BatchPolicyKind::kFixed, "fixed", make_fixed_policy},
    Policy{BatchPolicyKind::kRamp, "ramp", make_ramp_policy},
    Policy{BatchPolicyKind::kNoiseScale, "noise-scale", make_noise_scale_policy},
    Policy{BatchPolicyKind::kSeesaw, "seesaw", make_seesaw_policy},
    Policy{BatchPolicyKind::kGoodput, "goodput", make_goodput_policy},
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
  return reader +
         " needs the critical batch, which is neither given nor measured; set noise.horizon to "
         "the samples to average over, such as " +
         std::to_string(usual_noise_horizon(recipe.global_batch)) + ", or give batch.critical";
}

std::string_view name_of(BatchPolicyKind kind) {
  return policy_of(kind).name;
}

std::unique_ptr<BatchPolicy> make_batch_policy(BatchPolicyKind kind) {
  return policy_of(kind).make();
}

}  // namespace lorascale::coordinator
