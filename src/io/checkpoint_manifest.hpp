// MANIFEST.json of a checkpoint folder: what makes the folder a checkpoint. It lists every file
// with size and SHA-256, carries the trainer's own fields, and ends with the digest of everything
// before, so that no byte of it can change unnoticed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lorascale::io {

constexpr const char* kManifestName = "MANIFEST.json";
constexpr std::uint64_t kMaxManifestBytes = std::uint64_t{4} << 20;

struct ManifestFile {
  std::string name;  // plain, inside the folder
  std::uint64_t bytes = 0;
  std::string sha256;
};

struct Manifest {
  std::int64_t step = 0;        // optimizer steps done
  std::int64_t generation = 0;  // which start of the run wrote it
  std::string fields =
      "{}";  // the trainer's own JSON object (samples seen, world size, config hash, ...)
  std::vector<ManifestFile> files;
};

// Throws Error(kBadInput) where `fields` is no JSON object.
std::string compose_manifest(const Manifest& manifest);

// Checks the digest first, then every field; names that would leave the folder, negative sizes and
// unknown versions are Error(kBadInput). `where` opens the message.
Manifest parse_manifest(std::string_view text, const std::string& where);

}  // namespace lorascale::io
