// Reading many byte ranges of open files at once, cut into pieces over a few threads, so that a
// fast disk or a network file system sees enough requests in flight. Blocks until all is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "io/file_descriptor.hpp"

namespace lorascale::io {

struct ByteRange {
  const FileDescriptor* file = nullptr;
  const std::filesystem::path* shown_path = nullptr;  // for messages
  std::uint64_t offset = 0;                           // in the file
  std::span<std::byte> destination;
};

// Fills every destination. The first failure (as of read_exactly) stops all threads and is thrown;
// what the destinations hold is then undefined.
void read_parallel(std::span<const ByteRange> ranges, int threads);

}  // namespace lorascale::io
