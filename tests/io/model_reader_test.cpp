#include "io/model_reader.hpp"

#include <vector>

#include "io/safetensors_writer.hpp"
#include "safetensors_support.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

class ModelReaderTest : public testing::Test {
 protected:
  // A file with one-byte tensors, each holding the first letter of its name.
  void put_tensors(const fs::path& path, std::initializer_list<std::string> names) {
    std::vector<TensorToWrite> tensors;
    for (const std::string& name : names) {
      tensors.push_back({name, Dtype::kU8, {1}, bytes_of(std::string_view(name).substr(0, 1))});
    }
    write_safetensors(path, tensors);
  }
  void put_two_shards() {
    put_tensors(folder_ / "model-00001-of-00002.safetensors", {"a", "c"});
    put_tensors(folder_ / "model-00002-of-00002.safetensors", {"b"});
    put_index(R"({"a": "model-00001-of-00002.safetensors", "c": "model-00001-of-00002.safetensors",
                  "b": "model-00002-of-00002.safetensors"})");
  }
  void put_index(const std::string& weight_map) {
    put_file(folder_ / "model.safetensors.index.json",
             R"({"metadata": {"total_size": 3}, "weight_map": )" + weight_map + "}");
  }
  std::string value_of(const ModelReader& reader, std::string_view key) {
    std::vector<std::byte> data(reader.at(key).bytes());
    reader.read(key, data);
    return text_of(data);
  }
  void expect_bad(std::initializer_list<std::string_view> words) {
    expect_error(ExitCode::kBadInput, words, [&] { ModelReader reader(folder_.path()); });
  }

  const TempFolder folder_;
};

TEST_F(ModelReaderTest, ReadsAFolderWithOneFile) {
  put_tensors(folder_ / "model.safetensors", {"b", "a"});
  const ModelReader reader(folder_.path());
  EXPECT_THAT(reader.keys(), ElementsAre("a", "b"));
  EXPECT_EQ(reader.total_bytes(), 2U);
  EXPECT_EQ(value_of(reader, "a"), "a");
  EXPECT_EQ(reader.find("c"), nullptr);
  expect_error(ExitCode::kBadInput, {folder_.path().string(), "no tensor \"c\""},
               [&] { (void)reader.at("c"); });
}

TEST_F(ModelReaderTest, ReadsASingleFileByPath) {
  put_tensors(folder_ / "any name.safetensors", {"a"});
  EXPECT_EQ(value_of(ModelReader(folder_ / "any name.safetensors"), "a"), "a");
}

TEST_F(ModelReaderTest, TheFolderOfAModelIsWhereItsFileLies) {
  put_tensors(folder_ / "model.safetensors", {"a"});
  EXPECT_EQ(model_folder(folder_ / "model.safetensors"), folder_.path());
  EXPECT_EQ(model_folder(folder_.path()), folder_.path());
  EXPECT_EQ(model_folder("nowhere"), fs::path("nowhere"));
  const auto before = fs::current_path();
  fs::current_path(folder_.path());
  EXPECT_EQ(model_folder("model.safetensors"), fs::path("."));
  fs::current_path(before);
}

TEST_F(ModelReaderTest, ReadsShards) {
  put_two_shards();
  for (const fs::path& path : {folder_.path(), folder_ / "model.safetensors.index.json"}) {
    const ModelReader reader(path);
    EXPECT_THAT(reader.keys(), ElementsAre("a", "b", "c"));
    EXPECT_EQ(reader.files().size(), 2U);
    EXPECT_EQ(reader.total_bytes(), 3U);
    EXPECT_EQ(value_of(reader, "b"), "b");
    EXPECT_EQ(value_of(reader, "c"), "c");
  }
}

TEST_F(ModelReaderTest, PrefersTheSingleFile) {
  put_two_shards();
  put_tensors(folder_ / "model.safetensors", {"x"});
  EXPECT_THAT(ModelReader(folder_.path()).keys(), ElementsAre("x"));
}

TEST_F(ModelReaderTest, KnowsTheNamesOfDiffusers) {
  put_tensors(folder_ / "diffusion_pytorch_model.fp16.safetensors", {"half"});
  EXPECT_THAT(ModelReader(folder_.path()).keys(), ElementsAre("half"));
  put_tensors(folder_ / "diffusion_pytorch_model.safetensors", {"full"});
  EXPECT_THAT(ModelReader(folder_.path()).keys(), ElementsAre("full"));
}

// Downloads of a model hub lie in folders of links that point out of them.
TEST_F(ModelReaderTest, FollowsLinksToFiles) {
  fs::create_directory(folder_ / "blobs");
  fs::create_directory(folder_ / "snapshot");
  put_tensors(folder_ / "blobs/0123", {"a"});
  fs::create_symlink("../blobs/0123", folder_ / "snapshot/model.safetensors");
  EXPECT_EQ(value_of(ModelReader(folder_ / "snapshot"), "a"), "a");
}

TEST_F(ModelReaderTest, ReadsManyTensorsAtOnce) {
  put_two_shards();
  const ModelReader reader(folder_.path());
  std::string values = "...";
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(values));
  const std::vector<ModelReader::ReadRequest> requests{
      {"c", bytes.subspan(0, 1)}, {"b", bytes.subspan(1, 1)}, {"a", bytes.subspan(2, 1)}};
  reader.read_all(requests, 2);
  EXPECT_EQ(values, "cba");
  const std::vector<ModelReader::ReadRequest> wrong{{"nope", bytes.subspan(0, 1)}};
  expect_error(ExitCode::kBadInput, {"no tensor \"nope\""}, [&] { reader.read_all(wrong); });
}

TEST_F(ModelReaderTest, RefusesShardNamesThatLeaveTheFolder) {
  put_tensors(folder_ / "outside.safetensors", {"a"});
  const fs::path inner = folder_ / "model";
  fs::create_directory(inner);
  const std::string absolute = (folder_ / "outside.safetensors").string();
  for (const std::string& name :
       {std::string("../outside.safetensors"), absolute, std::string("sub/x.safetensors"),
        std::string("..\\\\outside.safetensors"), std::string("x\\u0000.safetensors"),
        std::string(".."), std::string(""), std::string("/etc/passwd"), std::string("passwd"),
        std::string("model.bin")}) {
    SCOPED_TRACE(name);
    put_file(inner / "model.safetensors.index.json", R"({"weight_map": {"a": ")" + name + "\"}}");
    expect_error(ExitCode::kBadInput,
                 {"model.safetensors.index.json", "\"a\"", "plain name", "trust"},
                 [&] { ModelReader reader(inner); });
  }
}

TEST_F(ModelReaderTest, NamesMissingShards) {
  put_two_shards();
  fs::remove(folder_ / "model-00002-of-00002.safetensors");
  expect_bad({"index.json", "1 of 2 shards are missing", "model-00002-of-00002.safetensors",
              "finish the download"});
}

TEST_F(ModelReaderTest, ComparesIndexAndShards) {
  put_two_shards();
  put_index(
      R"({"a": "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"})");
  // An entry that is wrong matters where it is asked for.
  const ModelReader stale(folder_.path());
  EXPECT_EQ(value_of(stale, "a"), "a");
  EXPECT_EQ(stale.find("x"), nullptr);
  expect_error(ExitCode::kBadInput,
               {"\"x\"", "not in \"model-00002-of-00002.safetensors\"", "afresh"},
               [&] { (void)stale.at("x"); });
  put_index(
      R"({"a": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"})");
  const ModelReader elsewhere(folder_.path());
  EXPECT_EQ(value_of(elsewhere, "c"), "c");
  EXPECT_EQ(elsewhere.find("a"), nullptr);
  expect_error(ExitCode::kBadInput, {"\"a\"", "not in \"model-00002-of-00002.safetensors\""},
               [&] { (void)elsewhere.at("a"); });
  put_two_shards();
  put_tensors(folder_ / "model-00002-of-00002.safetensors", {"b", "a"});
  expect_bad(
      {"\"a\"", "both", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"});
}

TEST_F(ModelReaderTest, RefusesMalformedIndices) {
  const auto put_text = [&](std::string_view text) {
    put_file(folder_ / "model.safetensors.index.json", text);
  };
  put_text("{");
  expect_bad({"index.json", "not valid JSON"});
  put_text("{}");
  expect_bad({"\"weight_map\" is missing"});
  put_text(R"({"weight_map": []})");
  expect_bad({"\"weight_map\"", "object"});
  put_text(R"({"weight_map": {}})");
  expect_bad({"empty"});
  put_text(R"({"weight_map": {"a": 1}})");
  expect_bad({"\"a\"", "must name a shard"});
  put_text(R"({"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}})");
  expect_bad({"\"a\"", "twice"});
  put_text(R"({"weight_map": {}, "weight_map": {"a": "y.safetensors"}})");
  expect_bad({"\"weight_map\"", "twice"});
}

TEST_F(ModelReaderTest, PointsToADamagedShard) {
  put_two_shards();
  fs::resize_file(folder_ / "model-00001-of-00002.safetensors", 60);
  expect_bad({"model-00001-of-00002.safetensors", "cut short"});
}

TEST_F(ModelReaderTest, NeverOpensPickles) {
  for (const char* name : {"model.bin", "v1.ckpt", "lora.pt", "x.pth", "x.pkl"}) {
    const fs::path path = folder_ / name;
    expect_error(ExitCode::kBadInput, {name, "pickle", "safetensors", "convert"},
                 [&] { ModelReader reader(path); });
  }
  put_file(folder_ / "pytorch_model.bin", "PK");
  expect_bad({"pytorch_model.bin", "pickle"});
}

TEST_F(ModelReaderTest, SaysWhatAFolderLacks) {
  put_file(folder_ / "config.json", "{}");
  expect_bad({folder_.path().string(), "holds no model", "model.safetensors", "check the path"});
  expect_error(ExitCode::kBadInput, {"nowhere", "No such file"},
               [&] { ModelReader reader(folder_ / "nowhere"); });
}

TEST_F(ModelReaderTest, FingerprintTellsModelsApartAndIgnoresThePath) {
  put_two_shards();
  const std::string fingerprint = ModelReader(folder_.path()).fingerprint();
  EXPECT_EQ(fingerprint.size(), 64U);
  const TempFolder other;
  fs::copy(folder_.path(), other / "copy", fs::copy_options::recursive);
  EXPECT_EQ(ModelReader(other / "copy").fingerprint(), fingerprint);
  put_tensors(folder_ / "model-00002-of-00002.safetensors", {"b", "d"});
  EXPECT_NE(ModelReader(folder_.path()).fingerprint(), fingerprint);
}

TEST_F(ModelReaderTest, FingerprintCoversWeightsAndConfig) {
  put_two_shards();
  const std::string fingerprint = ModelReader(folder_.path()).fingerprint();
  const fs::path shard = folder_ / "model-00002-of-00002.safetensors";
  const std::string sound = read_file(shard, 1 << 20);
  std::string changed = sound;
  changed.back() = static_cast<char>(changed.back() ^ 1);
  put_file(shard, changed);
  EXPECT_NE(ModelReader(folder_.path()).fingerprint(), fingerprint);
  put_file(shard, sound);
  EXPECT_EQ(ModelReader(folder_.path()).fingerprint(), fingerprint);
  put_file(folder_ / "config.json", "{\"rope_theta\": 5e5}");
  EXPECT_NE(ModelReader(folder_.path()).fingerprint(), fingerprint);
}

}  // namespace
}  // namespace lorascale::io
