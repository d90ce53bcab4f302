// New words of text encoders, alone and beside LoRA, as make_adapter() gives them.
#include "adapters/token/token_adapter.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "adapters/formats/embedding.hpp"
#include "adapters/small_model.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

class TokenAdapterTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder); }
  void TearDown() override { fs::remove_all(folder); }

  AdaptedModel adapted(std::vector<std::int64_t> begins_as = {}, std::size_t tables = 1) {
    auto found = model.adapted();
    for (std::size_t i = 0; i < tables; ++i) {
      const auto width = 40 + 2 * static_cast<std::int64_t>(i);
      tables_[i] =
          lorascale::test::noise({5000, width}, 7 + i) * 0.3 + at::arange(width, at::kFloat);
      found.token_tables.push_back(
          {i == 0 ? "text_encoder" : "text_encoder_2", tables_[i], begins_as, &added[i]});
    }
    return found;
  }

  static config::AdapterSection section(const std::string& type = "token") {
    config::AdapterSection section;
    section.type = type;
    section.rank = 2;
    section.targets = {"q_proj"};
    section.token.word = "<cat toy>";
    section.token.vectors = 3;
    section.token.lr_ratio = 5;
    return section;
  }

  static std::string refusal(const config::AdapterSection& section, const AdaptedModel& model) {
    try {
      static_cast<void>(make_adapter(section, model, 1));
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }

  test::SmallModel model;
  at::Tensor tables_[2];
  nn::NewTokens added[2];
  fs::path folder = fs::temp_directory_path() / ("token_adapter_" + std::to_string(::getpid()));
};

TEST_F(TokenAdapterTest, RowsBeginAsOtherWords) {
  const auto adapter = make_adapter(section(), adapted({4, 9, 4}), 1);
  EXPECT_TRUE(added[0].rows.equal(tables_[0].index_select(0, at::tensor({4, 9, 4}, at::kLong))));
  EXPECT_EQ(added[0].gradient.sizes(), added[0].rows.sizes());
  added[0].gradient.fill_(2);
  EXPECT_EQ(adapter->parameters().gradient().sum().item<float>(), 2 * 3 * 40);
  at::Tensor(adapter->parameters().master()).fill_(3);  // fp32: the rows are the master
  EXPECT_TRUE(added[0].rows.eq(3).all().item<bool>());
  const auto& group = adapter->parameters().groups().at(0);
  EXPECT_EQ(group.name, "token");
  EXPECT_EQ(group.lr_ratio, 5);
  EXPECT_FALSE(group.decays);
}

TEST_F(TokenAdapterTest, OrAsTheTableIsSpread) {
  auto many = section();
  many.token.vectors = 75;
  static_cast<void>(make_adapter(many, adapted(), 1));
  const auto rows = added[0].rows.clone();
  const auto deviation = tables_[0].std(0, /*unbiased=*/false);
  const auto z = (rows - tables_[0].mean(0)) / deviation;
  EXPECT_NEAR(z.mean().item<double>(), 0, 0.08);
  EXPECT_NEAR(z.std().item<double>(), 1, 0.06);
  EXPECT_NEAR(z.mean(0).square().mean().item<double>() * 75, 1, 0.6);  // channel by channel
  static_cast<void>(make_adapter(many, adapted(), 1));
  EXPECT_TRUE(added[0].rows.equal(rows));
  static_cast<void>(make_adapter(many, adapted(), 2));
  EXPECT_FALSE(added[0].rows.equal(rows));
}

TEST_F(TokenAdapterTest, RoundedRowsFollowTheMaster) {
  auto model = adapted({1, 2, 3});
  model.token_tables[0].weight = tables_[0].to(at::kBFloat16);
  const auto adapter = make_adapter(section(), model, 1);
  EXPECT_EQ(added[0].rows.scalar_type(), at::kBFloat16);
  at::Tensor(adapter->parameters().master()).fill_(1.0009765625);  // of eleven bits
  EXPECT_FALSE(added[0].rows.eq(1).any().item<bool>());
  adapter->parameters().refresh();
  EXPECT_TRUE(added[0].rows.eq(1).all().item<bool>());
}

TEST_F(TokenAdapterTest, TheFileIsWhatWasTrained) {
  ExportContext context;
  context.metadata = {{"modelspec.architecture", "stable-diffusion-xl-v1-base/lora"}};
  const auto adapter = make_adapter(section(), adapted({}, 2), 1);
  adapter->write(folder, context);
  const auto file = embedding_file(folder);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->filename(), "cat_toy.safetensors");
  EXPECT_EQ(embedding_file(*file), file);
  const auto read = read_embedding(*file);
  EXPECT_EQ(read.word, "<cat toy>");
  ASSERT_EQ(read.rows.size(), 2U);
  EXPECT_TRUE(read.rows[0].equal(added[0].rows));
  EXPECT_TRUE(read.rows[1].equal(added[1].rows));
  EXPECT_TRUE(is_adapter(folder));
  EXPECT_TRUE(is_adapter(*file));
  EXPECT_EQ(summarise_adapter(folder), "word \"<cat toy>\", 3 vectors of width 40 and 42");
  EXPECT_THAT(describe_adapter(*file), HasSubstr("text encoder 2, vector 3 "));
  // A run that begins from it, of another word.
  auto next = section();
  next.token.word = "other";
  next.init_from = file->string();
  const auto rows = added[0].rows.clone();
  static_cast<void>(make_adapter(next, adapted({}, 2), 3));
  EXPECT_TRUE(added[0].rows.equal(rows));
  next.token.vectors = 2;
  EXPECT_THAT(refusal(next, adapted({}, 2)), HasSubstr("set adapter.token.vectors"));
  next.token.vectors = 3;
  EXPECT_THAT(refusal(next, adapted({}, 1)), HasSubstr("take one of this kind of model"));
  next.init_from = (folder / "nothing").string();
  EXPECT_THAT(refusal(next, adapted({}, 2)), HasSubstr("is no embedding"));
}

TEST_F(TokenAdapterTest, BesideLora) {
  const auto plain = section("lora");
  const auto adapter = make_adapter(plain, adapted({1, 1, 1}), 1);
  auto without = section("lora");
  without.token.word.reset();
  const auto alone = make_adapter(without, adapted({1, 1, 1}), 1);
  const auto& together = adapter->parameters();
  const auto size = alone->parameters().size();
  EXPECT_EQ(together.size(), size + 3 * 40);
  EXPECT_TRUE(together.master().narrow(0, 0, size).equal(alone->parameters().master()));
  EXPECT_EQ(together.groups().back().name, "token");
  EXPECT_TRUE(added[0].rows.is_alias_of(together.master()));
  EXPECT_TRUE(adapter->movement().has_value());
}

TEST_F(TokenAdapterTest, AModelWithoutTextEncoderIsRefused) {
  EXPECT_THAT(refusal(section(), model.adapted()), StartsWith("adapter.type: token"));
}

}  // namespace
}  // namespace lorascale::adapters
