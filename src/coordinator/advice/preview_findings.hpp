// Over-fitting as users of pictures see it, from what the model makes at a run's end compared with
// its base at the same seeds. Each is a ratio, and its limit is far from what a healthy run has:
//
// - `seeds_distance`: how far pictures of one prompt with different seeds lie from each other, over
//   that of the base. Below a half, the seed no longer matters: pictures are repeated.
// - `change_without_words`: how far the adapter moves a picture whose prompt lacks the words that
//   the captions share, over what it moves with them. Above a half, the words do not call the
//   concept, it is always there.
// - `prior_loss`: the loss of pictures for regularisation over the base's. Above 1.1, others
//   were unlearnt.
#pragma once

#include <optional>

#include "coordinator/advice/finding.hpp"
#include "coordinator/measure.hpp"

namespace lorascale::coordinator {

inline constexpr const char* kSeedsDistance = "seeds_distance";
inline constexpr const char* kChangeWithoutWords = "change_without_words";
inline constexpr const char* kPriorLoss = "prior_loss";

// Nothing where the number is within its limit, or its name is not known.
std::optional<Finding> preview_finding(const Measure& measure);

}  // namespace lorascale::coordinator
