// Checkpoints as folders `step-NNNNNNNN` inside a checkpoints folder. A folder is a checkpoint only
// if its MANIFEST.json verifies and every file in it has the recorded size and SHA-256. Commit
// protocol: files and then the manifest go to `.tmp-step-NNNNNNNN-GENERATION`, each written, synced
// and closed with checks; all is read back and verified; one rename makes it visible. A crash or an
// error at any point leaves the older checkpoints as they were. One process writes; RunLock keeps
// others away.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint_manifest.hpp"
#include "io/file_descriptor.hpp"

namespace lorascale::io {

// A verified checkpoint, opened for reading.
class Checkpoint {
 public:
  // Verifies everything. Throws Error(kBadInput) naming the file and what is wrong with it. The
  // folder itself and its files must not be symbolic links.
  explicit Checkpoint(std::filesystem::path folder);

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  [[nodiscard]] std::int64_t step() const { return manifest_.step; }
  [[nodiscard]] std::int64_t generation() const { return manifest_.generation; }
  [[nodiscard]] const std::string& fields() const { return manifest_.fields; }  // a JSON object
  [[nodiscard]] const std::vector<ManifestFile>& files() const { return manifest_.files; }
  [[nodiscard]] bool has(std::string_view name) const;

  // The bytes of one file, compared with its digest again while they are read.
  [[nodiscard]] std::vector<std::byte> read(std::string_view name) const;

 private:
  friend class CheckpointWriter;
  Checkpoint(std::filesystem::path folder, std::int64_t expected_step);
  void verify(std::int64_t expected_step);

  std::filesystem::path folder_;
  FileDescriptor descriptor_;
  Manifest manifest_;
};

// What becomes of an intact checkpoint of the same step.
enum class Existing { kKept, kReplaced };

class CheckpointWriter {
 public:
  // Opens the temporary folder; what an earlier attempt left under its name is removed first.
  // `generation` tells starts of the same run apart (RunLock::generation). Errors are
  // Error(kCannotWrite).
  CheckpointWriter(std::filesystem::path checkpoints, std::int64_t step, std::int64_t generation);
  ~CheckpointWriter();  // removes the temporary folder unless committed
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Writes one file durably. `name` is a plain file name, new in this checkpoint.
  void add(const std::string& name, std::span<const std::byte> data);
  void add(const std::string& name, std::string_view text);
  // The same from pieces that follow each other in the file (such as a SafetensorsLayout).
  void add(const std::string& name, std::span<const std::span<const std::byte>> pieces);

  // Makes the checkpoint visible and returns its folder. `fields` is a JSON object. `before_rename`
  // runs after verification, at the last moment that can stop the commit by throwing (fencing). A
  // damaged checkpoint of the same step is moved out of the way; an intact one is kept (Error), or
  // replaced: in one step, or where the file system cannot, in two, between which it is not there.
  std::filesystem::path commit(std::string_view fields,
                               const std::function<void()>& before_rename = {},
                               Existing existing = Existing::kKept);

 private:
  void move_into_place(const std::filesystem::path& target, Existing existing);

  std::filesystem::path checkpoints_;
  std::filesystem::path temporary_;
  Manifest manifest_;
  bool committed_ = false;
};

// "step-00000100"; the step of such a name, or nothing for any other.
std::string checkpoint_name(std::int64_t step);
std::optional<std::int64_t> checkpoint_step(std::string_view name);

// The steps of all folders named like a checkpoint, newest first, unverified. Empty where the
// folder is missing.
std::vector<std::int64_t> list_checkpoints(const std::filesystem::path& checkpoints);

struct SkippedCheckpoint {
  std::filesystem::path folder;
  std::string reason;
};

struct NewestCheckpoint {
  std::optional<Checkpoint> checkpoint;
  std::vector<SkippedCheckpoint> skipped;  // newer ones, and why they cannot be used
};

// The newest checkpoint that verifies. Looks at the folders alone: the file LATEST is written for
// people and scripts and never believed. Where `checkpoint` is empty and `skipped` is not, all are
// damaged and the caller ends with kBadInput; where both are empty, there is none yet.
// Only those of steps before `before` are looked at.
NewestCheckpoint find_newest_valid(const std::filesystem::path& checkpoints,
                                   std::int64_t before = std::numeric_limits<std::int64_t>::max());

}  // namespace lorascale::io
