// The makers of all batch policies; each is defined in the file of its name.
#pragma once

#include <memory>

#include "coordinator/batch/batch_policy.hpp"

namespace lorascale::coordinator {

std::unique_ptr<BatchPolicy> make_fixed_policy();
std::unique_ptr<BatchPolicy> make_ramp_policy();
std::unique_ptr<BatchPolicy> make_noise_scale_policy();
std::unique_ptr<BatchPolicy> make_seesaw_policy();
std::unique_ptr<BatchPolicy> make_goodput_policy();

}  // namespace lorascale::coordinator
