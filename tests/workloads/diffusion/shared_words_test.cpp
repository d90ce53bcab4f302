#include "workloads/diffusion/shared_words.hpp"

#include <gtest/gtest.h>

namespace lorascale::workloads::diffusion {
namespace {

using Words = std::vector<std::string>;

TEST(SharedWords, AreThoseOfNineInTen) {
  EXPECT_EQ(shared_words({"sks style, a cat", "A dog in Sks style", "sks style, a red house"}),
            (Words{"sks", "style"}));
  Words captions(9, "a drawing of <Kitten-1>");
  captions.emplace_back("a <kitten-1>");
  EXPECT_EQ(shared_words(captions), (Words{"drawing", "<kitten-1>"}));
  captions.emplace_back("<kitten-1>");  // nine of eleven are too few
  EXPECT_EQ(shared_words(captions), (Words{"<kitten-1>"}));
  // Nothing in common but small words; and too few to tell.
  EXPECT_EQ(shared_words({"a cat", "a dog", "a house"}), Words{});
  EXPECT_EQ(shared_words({"sks", "sks"}), Words{});
  EXPECT_EQ(shared_words({"", "", ""}), Words{});
  EXPECT_EQ(shared_words({"猫 の絵", "犬 の絵", "家 の絵"}), (Words{"の絵"}));
}

TEST(SharedWords, AreTakenOutOfPrompts) {
  const Words words = {"sks", "style"};
  EXPECT_EQ(without_words("sks style, a cat", words), "a cat");
  EXPECT_EQ(without_words("a cat in SKS style, red (sks) fur", words), "a cat in, red () fur");
  EXPECT_EQ(without_words("a cat, sks style, on grass", words), "a cat, on grass");
  EXPECT_EQ(without_words("a sksy cat", words), "a sksy cat");
  EXPECT_EQ(without_words("a  cat", {}), "a cat");
  // Nothing that says anything is left.
  EXPECT_EQ(without_words("a style of sks", words), "");
  EXPECT_EQ(without_words("", words), "");
  EXPECT_EQ(without_words("a <Cat-toy>, blue", {"<cat-toy>"}), "a, blue");
}

TEST(SharedWords, AreFoundInPrompts) {
  EXPECT_TRUE(has_words("A cat in Sks (style)", {"sks", "style"}));
  EXPECT_FALSE(has_words("a cat in sks", {"sks", "style"}));
  EXPECT_TRUE(has_words("a <Cat-toy>", {"<Cat-Toy>"}));
}

}  // namespace
}  // namespace lorascale::workloads::diffusion
