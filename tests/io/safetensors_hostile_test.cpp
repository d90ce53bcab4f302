// Every malformed or hostile safetensors file must end in one clear error, in bounded time and
// memory. The first group repeats the cases of the reference implementation's own tests.
#include <fcntl.h>
#include <unistd.h>

#include <fstream>

#include "base/rng.hpp"
#include "io/safetensors.hpp"
#include "safetensors_support.hpp"

namespace lorascale::io {
namespace {

using namespace std::string_literals;

class HostileSafetensors : public testing::Test {
 protected:
  void expect_bad_bytes(std::string_view content, std::initializer_list<std::string_view> words) {
    SCOPED_TRACE(std::string(content.substr(0, 200)));
    put_file(path_, content);
    expect_error(ExitCode::kBadInput, {path_.string()}, [&] { SafetensorsFile file(path_); });
    expect_error(ExitCode::kBadInput, words, [&] { SafetensorsFile file(path_); });
  }
  void expect_bad(const std::string& header, std::size_t data_bytes,
                  std::initializer_list<std::string_view> words) {
    expect_bad_bytes(safetensors_bytes(header, std::string(data_bytes, 'x')), words);
  }
  void expect_bad_entry(const std::string& fields, std::initializer_list<std::string_view> words) {
    expect_bad("{\"t\":{" + fields + "}}", 8, words);
  }
  void expect_good(const std::string& header, std::size_t data_bytes, std::size_t tensors) {
    SCOPED_TRACE(header.substr(0, 200));
    put_file(path_, safetensors_bytes(header, std::string(data_bytes, 'x')));
    EXPECT_EQ(SafetensorsFile(path_).tensors().size(), tensors);
  }

  const TempFolder folder_;
  const std::filesystem::path path_ = folder_ / "x.safetensors";
};

TEST_F(HostileSafetensors, HeaderLength) {
  expect_bad_bytes("", {"0 bytes", "too few", "again"});
  expect_bad_bytes("1234567", {"7 bytes", "too few"});
  expect_bad_bytes("\x3c\0\0\0\0\xff\xff\xff"s, {"too large", "limit is 100000000"});
  expect_bad_bytes("\xff\xff\xff\xff\xff\xff\xff\xff"s, {"too large"});
  expect_bad_bytes("\x3c\0\0\0\0\0\0\0"s, {"header of 60 bytes", "only 0 follow", "cut short"});
  expect_bad_bytes(little_endian_length(3) + "{}", {"header of 3 bytes", "only 2 follow"});
}

TEST_F(HostileSafetensors, HeaderText) {
  expect_bad_bytes("\x01\0\0\0\0\0\0\0\xff"s, {"not valid JSON"});
  expect_bad_bytes("\x01\0\0\0\0\0\0\0{"s, {"not valid JSON"});
  expect_bad("", 0, {"not valid JSON"});
  expect_bad("    ", 0, {"not valid JSON"});
  expect_bad("{}{}", 0, {"not valid JSON"});
  expect_bad("{}\0"s, 0, {"not valid JSON"});
  expect_bad("\xEF\xBB\xBF{}", 0, {"byte order mark"});
  expect_bad("{\"\xff\":1}", 0, {"UTF-8"});
  for (const char* text : {"[]", "1", "-1", "0.5", "\"x\"", "null", "true"}) {
    expect_bad(text, 0, {"no JSON object"});
  }
}

TEST_F(HostileSafetensors, AcceptsWhatTheFormatAllows) {
  expect_good("{}", 0, 0);
  expect_good("{}\r \t\n", 0, 0);
  expect_good("\t\n{}\r ", 0, 0);
  expect_good("{" + entry("t", "F32", "[2,0]", "[0,0]") + "}", 0, 1);
  expect_good("{" + entry("t", "F32", "[]", "[0,4]") + "}", 4, 1);
  expect_good("{" + entry("", "U8", "[1]", "[0,1]") + "}", 1, 1);
  expect_good(
      "{" + entry("F4", "F4", "[2]", "[0,1]") + "," + entry("F6", "F6_E2M3", "[4]", "[1,4]") + "}",
      4, 2);
  expect_good(R"({"__metadata__":{}})", 0, 0);
  expect_good("{" + entry("b", "U8", "[1]", "[1,2]") + "," + entry("a", "U8", "[1]", "[0,1]") + "}",
              2, 2);
  expect_good("{" + entry("../../etc/passwd", "U8", "[1]", "[0,1]") + "}", 1,
              1);  // a key, never a path
}

TEST_F(HostileSafetensors, SizesThatContradict) {
  expect_bad("{" + entry("t", "I32", "[2,2]", "[0,4]") + "}", 4,
             {"\"t\"", "needs 16 bytes", "give 4"});
  expect_bad("{" + entry("t", "I32", "[2,18446744073709551614]", "[0,16]") + "}", 16,
             {"\"t\"", "overflow"});
  expect_bad("{" + entry("t", "I32", "[2,9223372036854775807]", "[0,16]") + "}", 16,
             {"\"t\"", "overflow"});
  expect_bad("{" + entry("t", "I32", "[281474976710655,281474976710655]", "[0,16]") + "}", 16,
             {"overflow"});
  expect_bad("{" + entry("t", "I64", "[281474976710655,65535]", "[0,16]") + "}", 16, {"overflow"});
  expect_bad("{" + entry("t", "F4", "[3]", "[0,1]") + "}", 1, {"within a byte"});
  expect_bad("{" + entry("t", "F6_E3M2", "[1]", "[0,1]") + "}", 1, {"within a byte"});
  expect_bad("{" + entry("t", "U8", "[0]", "[1,0]") + "}", 1, {"begins after its end"});
  expect_bad("{" + entry("t", "U8", "[281474976710655]", "[0,281474976710655]") + "}", 4,
             {"cut short"});
}

TEST_F(HostileSafetensors, OverlapsHolesAndTails) {
  std::string header = "{";
  for (int i = 0; i < 10; ++i) {
    header += (i > 0 ? "," : "") + entry("t" + std::to_string(i), "I32", "[2,2]", "[0,16]");
  }
  expect_bad(header + "}", 16, {"overlaps"});
  expect_bad("{" + entry("a", "U8", "[4]", "[0,4]") + "," + entry("b", "U8", "[4]", "[3,7]") + "}",
             7, {"\"b\"", "overlaps", "begins at 3, expected 4"});
  expect_bad("{" + entry("a", "U8", "[4]", "[0,4]") + "," + entry("b", "U8", "[4]", "[5,9]") + "}",
             9, {"\"b\"", "hole"});
  expect_bad("{" + entry("a", "U8", "[4]", "[1,5]") + "}", 5, {"\"a\"", "hole"});
  expect_bad("{" + entry("a", "U8", "[4]", "[0,4]") + "}", 5, {"1 bytes follow the last tensor"});
  expect_bad("{" + entry("a", "U8", "[4]", "[0,4]") + "}", 2,
             {"cut short", "need 4", "holds 2", "again"});
  expect_bad("{}", 3, {"3 bytes follow"});
}

TEST_F(HostileSafetensors, Duplicates) {
  expect_bad("{" + entry("a", "U8", "[1]", "[0,1]") + "," + entry("a", "U8", "[1]", "[1,2]") + "}",
             2, {"\"a\"", "twice"});
  expect_bad(
      "{" + entry("a", "U8", "[1]", "[0,1]") + "," + entry("\\u0061", "U8", "[1]", "[1,2]") + "}",
      2, {"\"a\"", "twice"});
  expect_bad(R"({"__metadata__":{"k":"1","k":"2"}})", 0, {"\"k\"", "twice"});
  expect_bad(R"({"__metadata__":{},"__metadata__":{}})", 0, {"__metadata__", "twice"});
  expect_bad_entry(R"("dtype":"U8","shape":[8],"data_offsets":[0,8],"dtype":"I8")",
                   {"\"dtype\"", "twice"});
  expect_bad_entry(R"("dtype":"U8","shape":[8],"shape":[8],"data_offsets":[0,8])",
                   {"\"shape\"", "twice"});
  expect_bad_entry(R"("dtype":"U8","shape":[8],"data_offsets":[0,8],"data_offsets":[0,8])",
                   {"twice"});
}

TEST_F(HostileSafetensors, Numbers) {
  for (const char* number : {"-1", "-0", "4.5", "8.0", "1e3", "18446744073709551616", "1e400",
                             "null", "true", "\"8\"", "[8]", "{}"}) {
    const std::string text = number;
    SCOPED_TRACE(text);
    expect_bad_entry(R"("dtype":"U8","shape":[)" + text + R"(],"data_offsets":[0,8])", {"file"});
    expect_bad_entry(R"("dtype":"U8","shape":[8],"data_offsets":[)" + text + ",8]", {"file"});
    expect_bad_entry(R"("dtype":"U8","shape":[8],"data_offsets":[0,)" + text + "]", {"file"});
  }
  expect_bad_entry(R"("dtype":"U8","shape":[-1],"data_offsets":[0,8])", {"\"t\"", "negative"});
  expect_bad_entry(R"("dtype":"U8","shape":[4.5],"data_offsets":[0,8])",
                   {"\"t\"", "not a whole one"});
  expect_bad_entry(R"("dtype":"U8","shape":[8],"data_offsets":[0,281474976710656])", {"48 bits"});
}

TEST_F(HostileSafetensors, Fields) {
  expect_bad_entry(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])",
                   {"\"t\"", "unknown element type \"F33\""});
  expect_bad_entry(R"("dtype":"f32","shape":[2],"data_offsets":[0,8])", {"unknown element type"});
  expect_bad_entry(R"("dtype":5,"shape":[2],"data_offsets":[0,8])", {"\"t\"", "a number"});
  expect_bad_entry(R"("dtype":null,"shape":[2],"data_offsets":[0,8])", {"\"t\"", "null"});
  expect_bad_entry(R"("dtype":["F32"],"shape":[2],"data_offsets":[0,8])", {"\"t\"", "a list"});
  expect_bad_entry(R"("dtype":"F32","shape":8,"data_offsets":[0,8])", {"\"t\"", "a number"});
  expect_bad_entry(R"("dtype":"F32","shape":"[2]","data_offsets":[0,8])", {"\"t\"", "a text"});
  expect_bad_entry(R"("dtype":"F32","shape":{},"data_offsets":[0,8])", {"\"t\"", "an object"});
  expect_bad_entry(R"("dtype":"F32","shape":[2])", {"lacks one of"});
  expect_bad_entry(R"("shape":[2],"data_offsets":[0,8])", {"lacks one of"});
  expect_bad_entry(R"("dtype":"F32","data_offsets":[0,8])", {"lacks one of"});
  expect_bad_entry("", {"lacks one of"});
  expect_bad_entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1])",
                   {"unknown field \"strides\""});
  expect_bad_entry(R"("dtype":"F32","shape":[2],"data_offsets":[])", {"other than two"});
  expect_bad_entry(R"("dtype":"F32","shape":[2],"data_offsets":[8])", {"other than two"});
  expect_bad_entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])", {"other than two"});
  for (const char* value : {"1", "null", "[]", "\"x\""}) {
    expect_bad("{\"t\":"s + value + "}", 0, {"\"t\""});
  }
}

TEST_F(HostileSafetensors, Metadata) {
  for (const char* value : {"1", "-1", "0.5", "null", "true", "{}", "[]"}) {
    expect_bad(R"({"__metadata__":{"k":)"s + value + "}}", 0, {"\"k\"", "where it may not"});
  }
  expect_bad(R"({"__metadata__":"x"})", 0, {"__metadata__", "a text"});
  expect_bad(R"({"__metadata__":["x"]})", 0, {"__metadata__", "a list"});
}

TEST_F(HostileSafetensors, Names) {
  expect_bad("{" + entry("a\\u0000b", "U8", "[1]", "[0,1]") + "}", 1, {"a\\x00b", "NUL"});
  expect_bad("{" + entry("\\u001b[2J", "U9", "[1]", "[0,1]") + "}", 1,
             {"\\x1b[2J"});  // shown, not sent
}

TEST_F(HostileSafetensors, Nesting) {
  expect_bad(std::string(1'000'000, '['), 0, {"nested too deep"});
  expect_bad(R"({"t":{"shape":[[[[1]]]]}})", 0, {"nested too deep"});
  std::string objects;
  for (int i = 0; i < 100'000; ++i) {
    objects += R"({"a":)";
  }
  expect_bad(objects, 0, {"nested too deep"});
  std::string shape = "[1";
  for (int i = 0; i < 64; ++i) {
    shape += ",1";
  }
  expect_bad("{" + entry("t", "U8", shape + "]", "[0,1]") + "}", 1, {"more than 64 dimensions"});
}

TEST_F(HostileSafetensors, OtherFilesUnderThisName) {
  expect_bad_bytes("version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                   {"git-lfs pointer", "git lfs pull"});
  expect_bad_bytes("PK\x03\x04" + std::string(100, 'x'), {"pickle", "convert"});
  expect_bad_bytes("<!DOCTYPE html><html></html>", {"web page", "download"});
}

TEST_F(HostileSafetensors, LowerHeaderLimitForSmallFiles) {
  put_file(path_, safetensors_bytes("{}" + std::string(998, ' '), ""));
  EXPECT_NO_THROW(SafetensorsFile(path_, 1000));
  expect_error(ExitCode::kBadInput, {"too large", "limit is 999"},
               [&] { SafetensorsFile file(path_, 999); });
}

// Any change of a byte or of the length of a small file either leads to an error or leaves a
// consistent view; the sanitizers watch the rest.
TEST_F(HostileSafetensors, RandomDamage) {
  const std::string whole = safetensors_bytes(R"({"__metadata__":{"format":"pt"},)" +
                                                  entry("a", "F32", "[2,2]", "[0,16]") + "," +
                                                  entry("b", "BF16", "[3]", "[16,22]") + "}",
                                              std::string(22, 'd'));
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    std::string damaged = whole;
    const std::uint64_t bits = mix64(seed);
    const std::size_t at = bits % damaged.size();
    if (seed % 4 == 3) {
      damaged.resize(at);
    } else {
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (bits >> 32 & 7)));
    }
    put_file(path_, damaged);
    try {
      const SafetensorsFile file(path_);
      std::uint64_t covered = 0;
      for (const TensorInfo& tensor : file.tensors()) {
        EXPECT_EQ(tensor.begin, covered);
        EXPECT_EQ(tensor.bytes(), tensor_bytes(tensor.dtype, tensor.shape));
        covered = tensor.end;
      }
      EXPECT_EQ(covered, file.data_bytes());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput) << error.what();
    }
  }
}

// Peak memory of this process since the last reset, in MiB; 0 where the kernel does not tell.
int peak_memory_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) {
      return std::stoi(line.substr(6)) / 1024;
    }
  }
  return 0;
}

class LargeHeaders : public HostileSafetensors {
 protected:
  // Opens the file and returns the growth of peak memory in MiB.
  void expect_bad_in_bounds(const std::string& header_start, const std::string& repeated,
                            std::size_t count, std::initializer_list<std::string_view> words) {
    {
      std::ofstream file(path_, std::ios::binary);
      file << little_endian_length(header_start.size() + repeated.size() * count) << header_start;
      constexpr std::size_t kBlock = 10'000;
      std::string block;
      for (std::size_t i = 0; i < kBlock && count >= kBlock; ++i) {
        block += repeated;
      }
      for (std::size_t i = 0; i < count / kBlock; ++i) {
        file << block;
      }
      for (std::size_t i = 0; i < count % kBlock; ++i) {
        file << repeated;
      }
    }
    std::ofstream("/proc/self/clear_refs") << "5";  // resets VmHWM
    const int before = peak_memory_mib();
    expect_error(ExitCode::kBadInput, words, [&] { SafetensorsFile file(path_); });
    RecordProperty("peak_mib", peak_memory_mib() - before);
#ifndef __SANITIZE_ADDRESS__
    EXPECT_LE(peak_memory_mib() - before, 256);
#endif
  }
};

TEST_F(LargeHeaders, CapIsExact) {
  {
    std::ofstream file(path_, std::ios::binary);
    file << little_endian_length(kMaxSafetensorsHeader) << "{}"
         << std::string(kMaxSafetensorsHeader - 2, ' ');
  }
  EXPECT_TRUE(SafetensorsFile(path_).tensors().empty());
  std::ofstream(path_, std::ios::binary | std::ios::in)
      << little_endian_length(kMaxSafetensorsHeader + 1);
  std::ofstream(path_, std::ios::binary | std::ios::app) << ' ';
  expect_error(ExitCode::kBadInput, {"100000001 bytes", "too large"},
               [&] { SafetensorsFile file(path_); });
}

TEST_F(LargeHeaders, HundredThousandOverlappingTensors) {
  std::string header = "{";
  for (int i = 0; i < 100'000; ++i) {
    header += (i > 0 ? "," : "") + entry("weight_" + std::to_string(i), "F32", "[2,2]", "[0,16]");
  }
  expect_bad_in_bounds(header + "}", "", 0, {"overlaps"});
}

TEST_F(LargeHeaders, TooManyTensors) {
  expect_bad_in_bounds("{", R"("":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)", 600'000,
                       {"more than 500000 tensors"});
  expect_bad_in_bounds("{", R"("":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)", 1'900'000,
                       {"too many values"});
}

TEST_F(LargeHeaders, LongNames) {
  std::string header = "{";
  for (int i = 0; i < 450'000; ++i) {
    header +=
        (i > 0 ? "," : "") + entry(std::to_string(i) + std::string(150, 'n'), "U8", "[]", "[0,1]");
  }
  expect_bad_in_bounds(header + "}", "", 0, {"overlaps"});
}

TEST_F(LargeHeaders, TooManySizes) {
  expect_bad_in_bounds(R"({"t":{"dtype":"U8","shape":[1)", ",1", 45'000'000, {"too many values"});
}

TEST_F(LargeHeaders, TooManyMetadataItems) {
  std::string header = R"({"__metadata__":{)";
  for (int i = 0; i < 200'000; ++i) {
    header += "\"" + std::to_string(i) + R"(":"",)";
  }
  expect_bad_in_bounds(header, "", 0, {"100000 metadata items"});
}

TEST_F(LargeHeaders, EndlessTokens) {
  expect_bad_in_bounds("{\"", "aaaaaaaaaa", 9'000'000, {"string"});
  expect_bad_in_bounds(R"({"t":{"shape":[)", "1111111111", 9'000'000, {"overlong number"});
  expect_bad_in_bounds("", "[", 90'000'000, {"nested too deep"});
  expect_bad_in_bounds("", "\\\"", 45'000'000, {"string"});
}

}  // namespace
}  // namespace lorascale::io
