#include "data/pictures/caption_rows.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorascale::data {
namespace {

using testing::ElementsAre;
using Ids = std::vector<std::int32_t>;

const CaptionTokens kTokens{100, 98, 99, {99, 0}, ""};

// The word is 1 2, before a sign 1 3 of which 4 is left.
const std::vector<WordForm> kForms = {{{1, 3}, {100, 101, 102, 4}}, {{1, 2}, {100, 101, 102}}};

TEST(CaptionRowsTest, ANewWordIsReplacedWhereverItIsSpelt) {
  std::int64_t found = 0;
  EXPECT_THAT(with_new_word(Ids{1, 2, 7, 1, 1, 2, 1, 3, 1}, kForms, &found),
              ElementsAre(100, 101, 102, 7, 1, 100, 101, 102, 100, 101, 102, 4, 1));
  EXPECT_EQ(found, 3);
  EXPECT_THAT(with_new_word(Ids{2, 1}, kForms, &found), ElementsAre(2, 1));
  EXPECT_EQ(found, 3);
  EXPECT_THAT(with_new_word(Ids{1, 2}, {}), ElementsAre(1, 2));
}

TEST(CaptionRowsTest, RowsAreCutBehindThat) {
  const CaptionRows rows{2, 2, 5, kForms};
  Ids ids;
  add_caption_rows(Ids{1, 2, 8, 9, 1, 2}, kTokens, rows, ids);
  EXPECT_THAT(ids, ElementsAre(98, 100, 101, 102, 99, 98, 8, 9, 100, 99,  // cut within the word
                               98, 100, 101, 102, 99, 98, 8, 9, 100, 99));
  ids.clear();
  add_caption_rows(Ids{6, 1, 2}, kTokens, {2, 2, 5, kForms}, ids);
  EXPECT_THAT(ids, ElementsAre(98, 6, 100, 101, 99, 98, 102, 99, 99, 99,  //
                               98, 6, 100, 101, 99, 98, 102, 99, 0, 0));
}

}  // namespace
}  // namespace lorascale::data
