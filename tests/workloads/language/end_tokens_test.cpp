#include "workloads/language/end_tokens.hpp"

#include <gtest/gtest.h>

namespace lorascale::workloads::language {
namespace {

TEST(EndTokens, WarnOfOneThatServersWouldNotKnow) {
  models::decoder::DecoderConfig model;
  model.eos_ids = {0, 2};
  model.server_eos_ids = {0};
  const auto warning = warning_of_end_token(model, 2, "<end>");
  ASSERT_TRUE(warning);
  EXPECT_NE(warning->find("token 2 (<end>)"), std::string::npos);
  EXPECT_NE(warning->find("name 0 as end"), std::string::npos);
  EXPECT_FALSE(warning_of_end_token(model, 0, ""));
  EXPECT_FALSE(warning_of_end_token(model, -1, ""));
  model.server_eos_ids = {};
  EXPECT_NE(warning_of_end_token(model, 2, "")->find("name no end token"), std::string::npos);
}

}  // namespace
}  // namespace lorascale::workloads::language
