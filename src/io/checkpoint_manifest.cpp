#include "io/checkpoint_manifest.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::io {
namespace {

constexpr const char* kFormat = "lorascale-checkpoint";
constexpr std::int64_t kVersion = 1;
constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 48;

// The digest covers the bytes before this ending, so white space counts as well.
std::string ending(std::string_view body) {
  return ",\n  \"manifest_sha256\": \"" + sha256_hex(body) + "\"\n}\n";
}

bool is_digest(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

ManifestFile parse_file(const JsonObject& entry) {
  entry.allow_only({"name", "bytes", "sha256"});
  ManifestFile file{entry.text("name"),
                    static_cast<std::uint64_t>(entry.integer("bytes", 0, kMaxFileBytes)),
                    entry.text("sha256")};
  if (!is_plain_file_name(file.name) || file.name == kManifestName) {
    entry.fail(
        "name",
        "is " + in_quotes(file.name) +
            ", which is no plain file name inside the checkpoint: do not trust this checkpoint");
  }
  if (!is_digest(file.sha256)) {
    entry.fail("sha256", "is no SHA-256 in lower-case hexadecimal: do not trust this checkpoint");
  }
  return file;
}

}  // namespace

std::string compose_manifest(const Manifest& manifest) {
  const nlohmann::json fields = parse_json(manifest.fields, "checkpoint fields");
  if (!fields.is_object()) {
    throw_bad_input("checkpoint fields: must be a JSON object");
  }
  nlohmann::ordered_json tree;
  tree["format"] = kFormat;
  tree["version"] = kVersion;
  tree["step"] = manifest.step;
  tree["generation"] = manifest.generation;
  tree["fields"] = fields;
  tree["files"] = nlohmann::ordered_json::array();
  for (const ManifestFile& file : manifest.files) {
    tree["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  std::string body = tree.dump(2);
  body.resize(body.size() - std::string_view("\n}").size());
  return body + ending(body);
}

Manifest parse_manifest(std::string_view text, const std::string& where) {
  const std::size_t length = ending({}).size();
  if (text.size() < length ||
      text.substr(text.size() - length) != ending(text.substr(0, text.size() - length))) {
    throw_bad_input(where +
                    ": its own SHA-256 does not match: the manifest is damaged or incomplete");
  }
  const nlohmann::json tree = parse_json(text, where, {.max_bytes = kMaxManifestBytes});
  const JsonObject root(tree, where);
  root.allow_only(
      {"format", "version", "step", "generation", "fields", "files", "manifest_sha256"});
  if (root.text("format") != kFormat || root.integer("version") != kVersion) {
    throw_bad_input(where + ": has format " + in_quotes(root.text("format")) + " version " +
                    std::to_string(root.integer("version")) + ", this program reads " + kFormat +
                    " version " + std::to_string(kVersion) +
                    ": use the program version that wrote it");
  }
  Manifest manifest;
  manifest.step = root.integer("step", 0);
  manifest.generation = root.integer("generation", 0);
  manifest.fields = root.object("fields").value().dump();
  const nlohmann::json& files = root.raw("files");
  if (!files.is_array()) {
    root.fail("files", "must be a list");
  }
  std::set<std::string> names;
  for (const nlohmann::json& item : files) {
    manifest.files.push_back(parse_file(JsonObject(item, where + ": \"files\"")));
    if (!names.insert(manifest.files.back().name).second) {
      root.fail("files", "lists " + in_quotes(manifest.files.back().name) + " twice");
    }
  }
  return manifest;
}

}  // namespace lorascale::io
