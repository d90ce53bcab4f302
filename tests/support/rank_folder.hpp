// A temporary folder that all ranks of a test share: rank 0 makes it, and removes it again when all
// are done with it. Collective to make and to unmake.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "comm/communicator.hpp"

namespace lorascale::test {

class RankFolder {
 public:
  explicit RankFolder(comm::Communicator& host) : host_(host) {
    std::string path = testing::TempDir() + "lorascale-ranks-XXXXXX";
    if (host.rank() == 0 && ::mkdtemp(path.data()) == nullptr) {
      ADD_FAILURE() << "cannot make " << path;
    }
    host.broadcast_from_root(path);
    path_ = path;
  }
  ~RankFolder() {
    host_.barrier();
    if (host_.rank() == 0) {
      std::filesystem::remove_all(path_);
    }
  }
  RankFolder(const RankFolder&) = delete;
  RankFolder& operator=(const RankFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const {
    return path_ / name;
  }

 private:
  comm::Communicator& host_;
  std::filesystem::path path_;
};

}  // namespace lorascale::test
