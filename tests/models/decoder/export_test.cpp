#include "models/decoder/export.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorascale::models::decoder {
namespace {

using nlohmann::json;

json right(const std::string& generation, const std::string& config, std::int64_t end) {
  const auto text = generation_config_with_end(generation, config, end);
  return text ? json::parse(*text) : json();
}

TEST(GenerationConfig, StaysWhereServersStopAlready) {
  EXPECT_TRUE(right(R"({"eos_token_id": 7})", R"({"eos_token_id": 1})", 7).is_null());
  EXPECT_TRUE(right(R"({"eos_token_id": [3, 7]})", "{}", 7).is_null());
  EXPECT_TRUE(right("", R"({"eos_token_id": 7})", 7).is_null());
  EXPECT_TRUE(right("{}", R"({"eos_token_id": [7]})", 7).is_null());
  EXPECT_TRUE(right("", "{}", -1).is_null());
}

TEST(GenerationConfig, GetsTheTokenInFront) {
  // generation_config.json counts where it names any, whatever config.json says.
  EXPECT_EQ(right(R"({"eos_token_id": 1, "top_p": 0.9})", R"({"eos_token_id": 7})", 7),
            json::parse(R"({"eos_token_id": [7, 1], "top_p": 0.9})"));
  EXPECT_EQ(right(R"({"eos_token_id": [1, 2], "_from_model_config": true})", "{}", 0),
            json::parse(R"({"eos_token_id": [0, 1, 2]})"));
}

TEST(GenerationConfig, IsMadeOfTheModelsWhereThereIsNone) {
  const auto made = right("", R"({"bos_token_id": 1, "eos_token_id": 2, "vocab_size": 9})", 4);
  EXPECT_EQ(made, json::parse(R"({"bos_token_id": 1, "eos_token_id": [4, 2]})"));
  EXPECT_EQ(right("damaged", "{}", 4), json::parse(R"({"eos_token_id": [4]})"));
  EXPECT_EQ(right(R"({"eos_token_id": null})", R"({"eos_token_id": null})", 4),
            json::parse(R"({"eos_token_id": [4]})"));
}

}  // namespace
}  // namespace lorascale::models::decoder
