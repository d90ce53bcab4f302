// Who owns a run folder. A lock on `.lock` keeps a second job on the same machines out; a
// generation, claimed once per start by creating `.generation-N`, makes an older process that comes
// back after a requeue notice that it has been replaced, also where the file system has no locks.
// Hold one for the whole run.
#pragma once

#include <cstdint>
#include <filesystem>

#include "io/file_descriptor.hpp"

namespace lorascale::io {

class RunLock {
 public:
  // Creates the folder where needed. Throws Error(kCannotWrite) at once, naming process and host of
  // the owner, where another process holds it.
  explicit RunLock(std::filesystem::path run_folder);

  // 1 for the first start in this folder, then counting up.
  [[nodiscard]] std::int64_t generation() const { return generation_; }

  // Throws Error(kInternal) where a newer generation has claimed the folder: the caller must stop
  // and write nothing more. Call it right before anything becomes visible
  // (CheckpointWriter::commit's before_rename).
  void check_still_owner() const;

 private:
  void take_lock();
  void claim_generation();

  std::filesystem::path folder_;
  FileDescriptor lock_;  // closing it releases the lock
  std::int64_t generation_ = 0;
};

}  // namespace lorascale::io
