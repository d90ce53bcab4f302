#include "io/checkpoint_manifest.hpp"

#include <nlohmann/json.hpp>

#include "base/hash.hpp"
#include "support.hpp"

namespace lorascale::io {
namespace {

const std::string kDigest = sha256_hex("x");

Manifest sample() {
  return {.step = 100,
          .generation = 3,
          .fields = R"({"samples": 6400, "lr": 0.1})",
          .files = {{"a.bin", 1, kDigest}}};
}

// A manifest with a right digest around any text, as only an attacker would write it.
std::string sealed(const std::string& members) {
  const std::string body = "{" + members;
  return body + ",\n  \"manifest_sha256\": \"" + sha256_hex(body) + "\"\n}\n";
}

std::string members(const std::string& files,
                    const std::string& rest = R"("step": 100, "generation": 3)") {
  return R"("format": "lorascale-checkpoint", "version": 1, "fields": {}, )" + rest +
         ", \"files\": " + files;
}

std::string file_named(const std::string& name) {
  return R"([{"name": ")" + name + R"(", "bytes": 1, "sha256": ")" + kDigest + "\"}]";
}

void expect_bad(const std::string& text, std::initializer_list<std::string_view> words) {
  SCOPED_TRACE(text);
  expect_error(ExitCode::kBadInput, words, [&] { parse_manifest(text, "MANIFEST.json"); });
}

TEST(Manifest, RoundTrips) {
  const Manifest manifest = parse_manifest(compose_manifest(sample()), "MANIFEST.json");
  EXPECT_EQ(manifest.step, 100);
  EXPECT_EQ(manifest.generation, 3);
  EXPECT_EQ(manifest.fields, R"({"lr":0.1,"samples":6400})");
  ASSERT_EQ(manifest.files.size(), 1U);
  EXPECT_EQ(manifest.files[0].name, "a.bin");
  EXPECT_EQ(manifest.files[0].bytes, 1U);
  EXPECT_EQ(manifest.files[0].sha256, kDigest);
}

TEST(Manifest, IsOrdinaryJson) {
  const nlohmann::json tree = nlohmann::json::parse(compose_manifest(sample()));
  EXPECT_EQ(tree["fields"]["samples"], 6400);
  EXPECT_EQ(tree["files"][0]["name"], "a.bin");
  EXPECT_EQ(tree["manifest_sha256"].get<std::string>().size(), 64U);
}

TEST(Manifest, NoticesEveryFlippedBitAndEveryCut) {
  const std::string text = compose_manifest(sample());
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = text;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      EXPECT_THROW(parse_manifest(damaged, "m"), Error) << i << " " << bit;
    }
    EXPECT_THROW(parse_manifest(text.substr(0, i), "m"), Error) << i;
  }
  expect_bad(text + "\n", {"MANIFEST.json", "SHA-256", "damaged or incomplete"});
  expect_bad("", {"damaged or incomplete"});
}

TEST(Manifest, RefusesNamesThatLeaveTheFolder) {
  EXPECT_NO_THROW(parse_manifest(sealed(members(file_named("a.bin"))), "m"));
  for (const char* name :
       {"../a", "/etc/passwd", "a/b", "..", ".", "", "a\\u0000", "a\\\\b", "MANIFEST.json"}) {
    expect_bad(sealed(members(file_named(name))), {"no plain file name", "do not trust"});
  }
}

TEST(Manifest, ChecksEveryField) {
  const std::string good = file_named("a");
  expect_bad(sealed(members("{}")), {"\"files\"", "list"});
  expect_bad(sealed(members("[1]")), {"\"files\"", "object"});
  expect_bad(sealed(members(good, R"("step": -1, "generation": 3)")), {"\"step\"", "at least 0"});
  expect_bad(sealed(members(good, R"("step": 1.5, "generation": 3)")),
             {"\"step\"", "whole number"});
  expect_bad(sealed(members(good, R"("generation": 3)")), {"\"step\"", "missing"});
  expect_bad(sealed(members(good, R"("step": 1, "step": 2, "generation": 3)")),
             {"\"step\"", "twice"});
  expect_bad(sealed(members(good, R"("step": 1, "generation": 3, "extra": 1)")),
             {"\"extra\"", "not known"});
  expect_bad(sealed(members(R"([{"name": "a", "bytes": -1, "sha256": ")" + kDigest + "\"}]")),
             {"\"bytes\""});
  expect_bad(sealed(members(R"([{"name": "a", "bytes": 18446744073709551616, "sha256": ""}])")),
             {"\"bytes\""});
  expect_bad(sealed(members(R"([{"name": "a", "bytes": 1, "sha256": "xyz"}])")), {"\"sha256\""});
  const std::string item = good.substr(1, good.size() - 2);
  expect_bad(sealed(members("[" + item + "," + item + "]")), {"\"a\"", "twice"});
}

TEST(Manifest, NamesAnUnknownVersion) {
  std::string text = members(file_named("a"));
  text.replace(text.find("\"version\": 1"), 12, "\"version\": 2");
  expect_bad(sealed(text),
             {"version 2", "reads lorascale-checkpoint version 1", "program version"});
}

TEST(Manifest, WantsFieldsAsAnObject) {
  for (const char* fields : {"[]", "1", "", "{", R"({"a": 1, "a": 2})"}) {
    Manifest manifest = sample();
    manifest.fields = fields;
    expect_error(ExitCode::kBadInput, {"checkpoint fields"}, [&] { compose_manifest(manifest); });
  }
}

}  // namespace
}  // namespace lorascale::io
