#include <vector>

#include "io/safetensors.hpp"
#include "safetensors_support.hpp"

namespace lorascale::io {
namespace {

using testing::ElementsAre;

class SafetensorsFileTest : public testing::Test {
 protected:
  // Two tensors, listed in another order than stored.
  void SetUp() override {
    put_file(path_, safetensors_bytes(R"({"__metadata__":{"format":"pt","note":"x"},)" +
                                          entry("second", "BF16", "[3]", "[8,14]") + "," +
                                          entry("first", "F32", "[1,2]", "[0,8]") + "}",
                                      "01234567abcdef"));
  }

  const TempFolder folder_;
  const std::filesystem::path path_ = folder_ / "x.safetensors";
};

TEST_F(SafetensorsFileTest, DescribesTensors) {
  const SafetensorsFile file(path_);
  ASSERT_EQ(file.tensors().size(), 2U);
  EXPECT_EQ(file.tensors()[0].name, "first");
  EXPECT_EQ(file.data_bytes(), 14U);
  EXPECT_EQ(file.file_bytes(), std::filesystem::file_size(path_));
  EXPECT_THAT(file.metadata(),
              ElementsAre(testing::Pair("format", "pt"), testing::Pair("note", "x")));
  const TensorInfo& second = file.at("second");
  EXPECT_EQ(second.dtype, Dtype::kBF16);
  EXPECT_THAT(second.shape, ElementsAre(3));
  EXPECT_EQ(second.begin, 8U);
  EXPECT_EQ(second.bytes(), 6U);
  EXPECT_EQ(file.find("third"), nullptr);
  expect_error(ExitCode::kBadInput, {path_.string(), "no tensor \"third\"", "right model"},
               [&] { (void)file.at("third"); });
}

TEST_F(SafetensorsFileTest, ReadsData) {
  const SafetensorsFile file(path_);
  std::vector<std::byte> data(6);
  file.read(file.at("second"), data);
  EXPECT_EQ(text_of(data), "abcdef");
  data.resize(8);
  file.read(file.at("first"), data, 1);
  EXPECT_EQ(text_of(data), "01234567");
}

TEST_F(SafetensorsFileTest, NoticesAFileThatShrinksAfterOpening) {
  const SafetensorsFile file(path_);
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 3);
  std::vector<std::byte> data(6);
  expect_error(ExitCode::kBadInput, {path_.string(), "became shorter"},
               [&] { file.read(file.at("second"), data); });
}

TEST_F(SafetensorsFileTest, GoesOnReadingAFileThatWasReplaced) {
  const SafetensorsFile file(path_);
  std::filesystem::rename(path_, folder_ / "old");
  put_file(path_, "something else");
  std::vector<std::byte> data(6);
  file.read(file.at("second"), data);
  EXPECT_EQ(text_of(data), "abcdef");
}

TEST_F(SafetensorsFileTest, NamesAMissingFile) {
  expect_error(ExitCode::kBadInput, {"none.safetensors", "No such file"},
               [&] { SafetensorsFile file(folder_ / "none.safetensors"); });
}

TEST(Dtypes, HaveTheNamesAndWidthsOfTheFormat) {
  const std::vector<std::pair<std::string, int>> expected{
      {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"BOOL", 8},    {"U8", 8},
      {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
      {"I32", 32},        {"U32", 32},    {"F32", 32},    {"I64", 64},    {"U64", 64},
      {"F64", 64},        {"C64", 64}};
  EXPECT_EQ(expected.size(), static_cast<std::size_t>(kDtypeCount));
  for (const auto& [name, bits] : expected) {
    const std::optional<Dtype> dtype = dtype_from_name(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    EXPECT_EQ(dtype_name(*dtype), name);
    EXPECT_EQ(dtype_bits(*dtype), bits) << name;
    EXPECT_EQ(has_whole_bytes(*dtype), bits >= 8) << name;
  }
  EXPECT_EQ(dtype_from_name("F128"), std::nullopt);
}

TEST(TensorBytes, ChecksOverflow) {
  EXPECT_EQ(tensor_bytes(Dtype::kF32, {}), 4U);
  EXPECT_EQ(tensor_bytes(Dtype::kF32, {3, 0, 5}), 0U);
  EXPECT_EQ(tensor_bytes(Dtype::kF4, {3, 2}), 3U);
  EXPECT_EQ(tensor_bytes(Dtype::kF4, {3}), std::nullopt);
  EXPECT_EQ(tensor_bytes(Dtype::kU8, {std::int64_t{1} << 62, 2}), std::nullopt);  // bits overflow
  EXPECT_EQ(element_count({-1, -1}), std::nullopt);
}

}  // namespace
}  // namespace lorascale::io
