#include "io/safetensors_writer.hpp"

#include <map>
#include <memory>
#include <vector>

#include "base/hash.hpp"
#include "io/safetensors.hpp"
#include "safetensors_support.hpp"

namespace lorascale::io {
namespace {

// Owns the bytes of a few tensors.
class Tensors {
 public:
  void add(const std::string& name, Dtype dtype, std::vector<std::int64_t> shape,
           std::string data) {
    data_.push_back(std::make_unique<std::string>(std::move(data)));
    list_.push_back({name, dtype, std::move(shape), bytes_of(*data_.back())});
  }
  [[nodiscard]] const std::vector<TensorToWrite>& list() const { return list_; }

 private:
  std::vector<std::unique_ptr<std::string>> data_;
  std::vector<TensorToWrite> list_;
};

TEST(SafetensorsWriter, WritesTheBytesOfTheFormat) {
  const TempFolder folder;
  Tensors tensors;
  tensors.add("b", Dtype::kBF16, {1}, "bb");
  tensors.add("z", Dtype::kF32, {}, "zzzz");
  tensors.add("a", Dtype::kBF16, {1, 1}, "aa");
  write_safetensors(folder / "x.safetensors", tensors.list(), {{"format", "pt"}});
  std::string header =
      R"({"__metadata__":{"format":"pt"},"z":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("a":{"dtype":"BF16","shape":[1,1],"data_offsets":[4,6]},)"
      R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[6,8]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(get_file(folder / "x.safetensors"), safetensors_bytes(header, "zzzzaabb"));
}

TEST(SafetensorsWriter, RoundTrips) {
  const TempFolder folder;
  Tensors tensors;
  tensors.add("layer/weight \"q\"\n\xc3\xa9", Dtype::kF32, {2, 1}, "12345678");
  tensors.add("empty", Dtype::kI64, {0, 7}, "");
  tensors.add("", Dtype::kU8, {3}, "xyz");
  write_safetensors(folder / "x.safetensors", tensors.list(), {{"k\n", "v\xc3\xa9"}});
  const SafetensorsFile file(folder / "x.safetensors");
  EXPECT_EQ(file.metadata().at("k\n"), "v\xc3\xa9");
  ASSERT_EQ(file.tensors().size(), 3U);
  for (const TensorToWrite& tensor : tensors.list()) {
    const TensorInfo& info = file.at(tensor.name);
    EXPECT_EQ(info.shape, tensor.shape);
    std::vector<std::byte> data(info.bytes());
    file.read(info, data);
    EXPECT_EQ(text_of(data), text_of(tensor.data));
  }
  write_safetensors(folder / "none.safetensors", {});
  EXPECT_EQ(get_file(folder / "none.safetensors"), safetensors_bytes("{}      ", ""));
}

TEST(SafetensorsWriter, RefusesWhatTheFormatCannotHold) {
  const auto expect_bad = [](const std::string& name, Dtype dtype, std::vector<std::int64_t> shape,
                             const std::string& data,
                             std::initializer_list<std::string_view> words) {
    Tensors tensors;
    tensors.add(name, dtype, std::move(shape), data);
    expect_error(ExitCode::kInternal, words,
                 [&] { lay_out_safetensors(tensors.list(), {}, "out.safetensors"); });
  };
  expect_bad("a", Dtype::kF32, {2}, "1234", {"out.safetensors", "\"a\"", "4 bytes", "ask for 8"});
  expect_bad("a", Dtype::kF32, {-1}, "1234", {"no whole number"});
  expect_bad("a", Dtype::kF4, {3}, "12", {"no whole number"});
  expect_bad("__metadata__", Dtype::kU8, {1}, "1", {"reserves"});
  expect_bad(std::string("a\0b", 3), Dtype::kU8, {1}, "1", {"forbids"});
  expect_bad("\xff", Dtype::kU8, {1}, "1", {"UTF-8"});
  Tensors twice;
  twice.add("a", Dtype::kU8, {1}, "1");
  twice.add("a", Dtype::kF32, {1}, "1234");
  expect_error(ExitCode::kInternal, {"\"a\"", "twice"},
               [&] { lay_out_safetensors(twice.list(), {}, "out"); });
}

TEST(SafetensorsWriter, RefusesTooLargeAHeaderAndKeepsTheOldFile) {
  const TempFolder folder;
  put_file(folder / "x.safetensors", "old");
  const std::map<std::string, std::string> metadata{
      {"large", std::string(kMaxSafetensorsHeader, 'x')}};
  expect_error(ExitCode::kCannotWrite,
               {"x.safetensors", "header", "100000000", "shorten the metadata"},
               [&] { write_safetensors(folder / "x.safetensors", {}, metadata); });
  EXPECT_EQ(get_file(folder / "x.safetensors"), "old");
}

TEST(SafetensorsLayout, CountsItsBytes) {
  Tensors tensors;
  tensors.add("a", Dtype::kU8, {5}, "12345");
  const SafetensorsLayout layout = lay_out_safetensors(tensors.list(), {}, "x");
  EXPECT_EQ(layout.file_bytes(), layout.head.size() + 5);
}

#ifdef LORASCALE_PYTHON
struct NamedDtype {
  const char* torch_name;
  Dtype dtype;
};

// The list of safetensors_peer.py.
constexpr NamedDtype kAllDtypes[] = {
    {"bool", Dtype::kBool},
    {"uint8", Dtype::kU8},
    {"int8", Dtype::kI8},
    {"float8_e5m2", Dtype::kF8E5M2},
    {"float8_e4m3fn", Dtype::kF8E4M3},
    {"float8_e8m0fnu", Dtype::kF8E8M0},
    {"float8_e4m3fnuz", Dtype::kF8E4M3Fnuz},
    {"float8_e5m2fnuz", Dtype::kF8E5M2Fnuz},
    {"int16", Dtype::kI16},
    {"uint16", Dtype::kU16},
    {"float16", Dtype::kF16},
    {"bfloat16", Dtype::kBF16},
    {"int32", Dtype::kI32},
    {"uint32", Dtype::kU32},
    {"float32", Dtype::kF32},
    {"complex64", Dtype::kC64},
    {"float64", Dtype::kF64},
    {"int64", Dtype::kI64},
    {"uint64", Dtype::kU64},
};

std::string pattern(std::string_view name, std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<char>((i * 7 + name.size()) % 2);
  }
  return bytes;
}

Tensors tensors_of_all_types() {
  Tensors tensors;
  for (const auto& [name, dtype] : kAllDtypes) {
    tensors.add(name, dtype, {2, 3},
                pattern(name, 6 * static_cast<std::size_t>(dtype_bits(dtype)) / 8));
  }
  const float scalar = 1.5F;
  tensors.add("scalar", Dtype::kF32, {}, text_of(std::as_bytes(std::span(&scalar, 1))));
  tensors.add("empty", Dtype::kF32, {2, 0}, "");
  tensors.add("na\xc3\xafve \"quoted\"\n", Dtype::kU8, {1}, std::string(1, '\0'));
  return tensors;
}

TEST(SafetensorsPeer, WritesTheSameFileAsTheReference) {
  if (!has_python()) {
    GTEST_SKIP() << "configured without Python";
  }
  const TempFolder folder;
  run_python("safetensors_peer.py", "write '" + (folder / "theirs.safetensors").string() + "'");
  write_safetensors(folder / "ours.safetensors", tensors_of_all_types().list(), {{"format", "pt"}});
  EXPECT_EQ(get_file(folder / "ours.safetensors"), get_file(folder / "theirs.safetensors"));
}

TEST(SafetensorsPeer, ReferenceReadsOurFile) {
  if (!has_python()) {
    GTEST_SKIP() << "configured without Python";
  }
  const TempFolder folder;
  Tensors tensors;
  tensors.add("b.weight", Dtype::kF16, {2, 2}, "abcdefgh");
  tensors.add("a.weight", Dtype::kF64, {1}, "12345678");
  tensors.add("c.bias", Dtype::kU8, {3}, "xyz");
  write_safetensors(folder / "x.safetensors", tensors.list(), {{"format", "pt"}, {"rank", "8"}});
  EXPECT_EQ(run_python("safetensors_peer.py", "read '" + (folder / "x.safetensors").string() + "'"),
            "a.weight F64 [1] " + sha256_hex("12345678") + "\nb.weight F16 [2x2] " +
                sha256_hex("abcdefgh") + "\nc.bias U8 [3] " + sha256_hex("xyz") +
                "\n[('format', 'pt'), ('rank', '8')]\n");
}
#endif

}  // namespace
}  // namespace lorascale::io
