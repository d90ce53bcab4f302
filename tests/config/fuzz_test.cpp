// Presets damaged at random, from a fixed seed: every result is a configuration or an Error, never
// a crash and never slow; and what was read can be written and read again.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>

#include "base/rng.hpp"
#include "config/resolved.hpp"
#include "config/validate.hpp"
#include "support.hpp"

namespace lorascale::config {
namespace {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : key_(philox_key(seed)) {}
  std::size_t below(std::size_t limit) {
    const auto block = philox4x32({static_cast<std::uint32_t>(count_++), 0, 0, 0}, key_);
    return limit == 0 ? 0 : block[0] % limit;
  }

 private:
  std::array<std::uint32_t, 2> key_;
  std::uint64_t count_ = 0;
};

constexpr std::array<std::string_view, 44> kPieces = {"&a ",
                                                      "*a",
                                                      "!!int ",
                                                      "<<: *a",
                                                      "---\n",
                                                      "...\n",
                                                      "[",
                                                      "]",
                                                      "{",
                                                      "}",
                                                      ": ",
                                                      "- ",
                                                      "? ",
                                                      "\n",
                                                      "\t",
                                                      "\"",
                                                      "'",
                                                      "|\n",
                                                      ">\n",
                                                      "#",
                                                      "%",
                                                      "null",
                                                      "~",
                                                      "yes",
                                                      "010",
                                                      "1_000",
                                                      "1e400",
                                                      ".nan",
                                                      "-1",
                                                      "99999999999999999999",
                                                      "\r",
                                                      "\x04",
                                                      "\xFF",
                                                      "\xC3",
                                                      "\\x00",
                                                      "\"\\0\"",
                                                      "auto",
                                                      "%TAG",
                                                      "3 epochs",
                                                      "5%",
                                                      "batch_size: 4\n",
                                                      "optimizer: {lr: 1}\n",
                                                      "learning_rate: 1\n",
                                                      "    "};

std::string mutated(std::string text, const std::string& other, Dice& dice) {
  const std::size_t edits = 1 + dice.below(6);
  for (std::size_t i = 0; i < edits; ++i) {
    const std::size_t at = dice.below(text.size() + 1);
    const std::size_t length = std::min(dice.below(40), text.size() - at);
    switch (dice.below(6)) {
      case 0:
        if (at < text.size()) {
          text[at] = static_cast<char>(dice.below(256));
        }
        break;
      case 1:
        text.insert(at, kPieces[dice.below(kPieces.size())]);
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, text.substr(at, length));
        break;
      case 4:
        text.insert(at, other.substr(dice.below(other.size()), length));
        break;
      default:
        text.replace(at, length, kPieces[dice.below(kPieces.size())]);
        break;
    }
  }
  return text;
}

// Comments are most of a preset; without them the edits hit what matters.
std::string without_comments(const std::string& text) {
  std::string out;
  std::size_t begin = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    std::string line = text.substr(begin, end - begin);
    line.erase(std::min(line.find('#'), line.size()));
    out += line.find_first_not_of(' ') == std::string::npos ? "" : line + "\n";
    begin = end + 1;
  }
  return out;
}

std::vector<std::string> seeds() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(LORASCALE_SOURCE_DIR "/configs")) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());  // directory order is not deterministic
  std::vector<std::string> texts;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    texts.push_back(without_comments({std::istreambuf_iterator<char>(file), {}}));
  }
  texts.push_back(write_resolved(RunConfig{}));
  return texts;
}

// However much is wrong: some lines that can be read.
void expect_short_lines(const std::string& message) {
  EXPECT_EQ(std::string(message.c_str()), message);
  std::istringstream lines(message);
  std::size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_TRUE(!line.empty() && line.size() < 1000) << message;
  }
  EXPECT_LE(count, Problems::kShown + 1) << message;
}

TEST(ConfigFuzz, DamagedPresetsAreReadOrRefused) {
  constexpr int kRounds = 6000;
  const std::vector<std::string> texts = seeds();
  Dice dice(20240607);
  int accepted = 0;
  int refused = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (int round = 0; round < kRounds; ++round) {
    const std::string text =
        mutated(texts[dice.below(texts.size())], texts[dice.below(texts.size())], dice);
    try {
      const RunConfig config = read_config_text(text, "fuzz.yaml", {}).config;
      ++accepted;
      EXPECT_EQ(read(write_resolved(config)), config) << text;
      validate(config);
    } catch (const Error& error) {
      ++refused;
      const std::string message = error.what();
      EXPECT_TRUE(error.code() == ExitCode::kBadConfig) << message;
      expect_short_lines(message);
    }
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(taken.count(), 90.0);
  // Both ends are reached, or the mutations are too weak or too strong to show anything.
  EXPECT_GT(accepted, kRounds / 50);
  EXPECT_GT(refused, kRounds / 5);
}

TEST(ConfigFuzz, DamagedOverridesAreReadOrRefused) {
  constexpr int kRounds = 3000;
  const std::vector<std::string> seeds = {"optimizer.lr=1e-4", "adapter.targets=[q_proj, v_proj]",
                                          "budget=3 epochs", "evaluate={early_stop: {patience: 1}}",
                                          "adapter.rank_pattern={q_proj: 4}"};
  Dice dice(7);
  int accepted = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::string text =
        mutated(seeds[dice.below(seeds.size())], seeds[dice.below(seeds.size())], dice);
    try {
      read("", {text});
      ++accepted;
    } catch (const Error& error) {
      expect_short_lines(error.what());
    }
  }
  EXPECT_GT(accepted, 10);
}

}  // namespace
}  // namespace lorascale::config
