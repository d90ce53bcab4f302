#include "workloads/diffusion/usual_settings.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorascale::workloads::diffusion {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TrainingFacts usual() {
  TrainingFacts facts;
  facts.pictures = 40;
  facts.samples = 2000;
  facts.side = 512;
  return facts;
}

TEST(UsualSettings, SayNothingOfWhatIsUsual) {
  EXPECT_THAT(unusual_settings(usual()), IsEmpty());
  auto facts = usual();
  facts.samples.reset();
  facts.adam = false;
  facts.rate = 0.1;  // of SGD
  EXPECT_THAT(unusual_settings(facts), IsEmpty());
}

TEST(UsualSettings, EachIsNamedWithItsRemedy) {
  auto facts = usual();
  facts.side = 256;
  EXPECT_THAT(unusual_settings(facts), ElementsAre(HasSubstr("--resolution 512")));
  facts = usual();
  facts.samples = 40;
  EXPECT_THAT(unusual_settings(facts), ElementsAre(HasSubstr("budget: 40 samples are few")));
  facts.samples = 40 * 300;
  EXPECT_THAT(unusual_settings(facts), IsEmpty());
  facts.samples = 40 * 400;
  EXPECT_THAT(unusual_settings(facts), ElementsAre(HasSubstr("seen 400 times")));
  facts = usual();
  facts.rate = 2e-3;
  EXPECT_THAT(unusual_settings(facts), ElementsAre(HasSubstr("0.002 is high; 5e-5 to 5e-4")));
  facts.rate = 1e-6;
  EXPECT_THAT(unusual_settings(facts), ElementsAre(HasSubstr("is low; 5e-5 to 5e-4")));
  facts.adapter = false;
  EXPECT_THAT(unusual_settings(facts), IsEmpty());
  facts.rate = 1e-4;
  EXPECT_THAT(unusual_settings(facts), ElementsAre(HasSubstr("where all weights train")));
  facts = usual();
  facts.rank = 128;
  EXPECT_THAT(unusual_settings(facts), IsEmpty());
  facts.pictures = 12;
  EXPECT_THAT(unusual_settings(facts), ElementsAre(HasSubstr("128 is high for 12 pictures")));
}

}  // namespace
}  // namespace lorascale::workloads::diffusion
