#include "coordinator/advice/preview_findings.hpp"

#include <string>
#include <vector>

#include "coordinator/coordinator.hpp"
#include "coordinator/support.hpp"

namespace lorascale::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// To whose settings there is nothing to object.
Recipe advised_recipe() {
  Recipe recipe = testing::small_recipe();
  recipe.samples_per_epoch = 640;
  recipe.global_batch = recipe.reference_batch = 16;
  recipe.leaf_size = 2;
  recipe.budget_samples = 800 * 16;
  recipe.warmup_samples = 40 * 16;
  recipe.advise = true;
  return recipe;
}

TEST(PreviewFindings, AreOfNumbersBeyondTheirLimitsAndSaidOnce) {
  const auto names = [](const std::vector<Measure>& measures, bool advise = true) {
    Recipe recipe = advised_recipe();
    recipe.advise = advise;
    Coordinator coordinator(recipe, 1);
    const auto before = coordinator.state_hash();
    for (int twice = 0; twice < 2; ++twice) {  // and is said once
      coordinator.on_preview({0, measures});
    }
    EXPECT_EQ(coordinator.state_hash(), before);
    std::vector<std::string> found;
    for (const Advice& advice : coordinator.advice_given()) {
      found.push_back(advice.finding);
    }
    return found;
  };
  EXPECT_THAT(names({{"seeds_distance", 0.5}, {"change_without_words", 0.5}, {"prior_loss", 1.1}}),
              IsEmpty());
  EXPECT_THAT(names({{"a_later_version's", 7}}), IsEmpty());
  const std::vector<Measure> poor = {{"seeds_distance", 0.49, "a cat"},
                                     {"change_without_words", 0.514, "sks"},
                                     {"prior_loss", 1.11, "8 pictures"}};
  EXPECT_THAT(names(poor), ElementsAre("seeds_alike", "change_leaks", "others_forgotten"));
  EXPECT_THAT(names(poor, /*advise=*/false), IsEmpty());
  Coordinator coordinator(advised_recipe(), 1);
  coordinator.on_preview({0, poor});
  EXPECT_THAT(coordinator.advice_given()[1].text, HasSubstr("without 'sks', which the captions"));
  EXPECT_THAT(coordinator.advice_given()[1].text, HasSubstr("0.51 times"));
  // Said once over a stop, too.
  auto resumed = Coordinator::restore(advised_recipe(), 2, coordinator.state());
  resumed.on_preview({0, poor});
  EXPECT_EQ(resumed.advice_given().size(), 3U);
}

}  // namespace
}  // namespace lorascale::coordinator
