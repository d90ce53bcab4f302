// A small checkpoint with fixed content, for the tests of the commit protocol.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "io/checkpoint_folder.hpp"
#include "support.hpp"

namespace lorascale::io {

inline const std::map<std::string, std::string>& sample_files() {
  static const std::map<std::string, std::string> files{
      {"adapter.safetensors", std::string(700, 'a') + std::string(300, 'b')},
      {"optimizer.bin", std::string("\0\1\2\3", 4)},
      {"state.json", "{\"step\": 1}"},
      {"empty", ""}};
  return files;
}

inline std::filesystem::path save_sample(const std::filesystem::path& checkpoints,
                                         std::int64_t step, std::int64_t generation = 1) {
  CheckpointWriter writer(checkpoints, step, generation);
  for (const auto& [name, content] : sample_files()) {
    writer.add(name, content);
  }
  return writer.commit("{\"samples\": " + std::to_string(step * 64) + "}");
}

inline void expect_sample(const Checkpoint& checkpoint, std::int64_t step) {
  EXPECT_EQ(checkpoint.step(), step);
  EXPECT_EQ(checkpoint.fields(), "{\"samples\":" + std::to_string(step * 64) + "}");
  EXPECT_EQ(checkpoint.files().size(), sample_files().size());
  for (const auto& [name, content] : sample_files()) {
    EXPECT_EQ(text_of(checkpoint.read(name)), content) << name;
  }
}

inline bool has_entry_like(const std::filesystem::path& folder, const std::string& prefix) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with(prefix)) {
      return true;
    }
  }
  return false;
}

}  // namespace lorascale::io
