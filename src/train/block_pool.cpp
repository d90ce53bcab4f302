#include "train/block_pool.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <new>

namespace lorascale::train {

namespace {

// Of the 47 bits of addresses that a process has.
constexpr std::size_t kMostAddressable = std::size_t{1} << 46;

}  // namespace

// In front of each block, so that a block alone says how large it is.
struct alignas(BlockPool::kAlignment) BlockPool::Header {
  std::size_t bytes;     // asked for
  std::size_t capacity;  // behind the header
};

void* BlockPool::allocate(std::size_t bytes) {
  if (bytes == 0) {
    return nullptr;
  }
  if (bytes > kMostAddressable) {
    throw std::bad_alloc();
  }
  const auto size = static_cast<std::int64_t>(bytes);
  const std::lock_guard lock(mutex_);
  if (limit_ > 0 && now_ + size > limit_) {
    throw std::bad_alloc();
  }
  auto* header = static_cast<Header*>(take_kept(bytes));
  if (header == nullptr) {
    shrink_kept(std::max(most_, now_ + size) - size);
    const auto capacity = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    void* start = std::aligned_alloc(kAlignment, sizeof(Header) + capacity);
    if (start == nullptr && !kept_blocks_.empty()) {
      shrink_kept(0);
      start = std::aligned_alloc(kAlignment, sizeof(Header) + capacity);
    }
    if (start == nullptr) {
      throw std::bad_alloc();
    }
    header = new (start) Header{bytes, capacity};
    held_ += static_cast<std::int64_t>(capacity);
  }
  header->bytes = bytes;
  now_ += size;
  peak_ = std::max(peak_, now_);
  most_ = std::max(most_, now_);
  return header + 1;
}

void BlockPool::free(void* block) noexcept {
  if (block == nullptr) {
    return;
  }
  auto* header = static_cast<Header*>(block) - 1;
  const std::lock_guard lock(mutex_);
  now_ -= static_cast<std::int64_t>(header->bytes);
  if (header->capacity >= kSmallestKept) {
    try {
      kept_blocks_.emplace(header->capacity, header);
      return;
    } catch (const std::bad_alloc&) {  // no memory for the note of it: then it is not kept
    }
  }
  held_ -= static_cast<std::int64_t>(header->capacity);
  std::free(header);
}

void BlockPool::claim(std::int64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (limit_ > 0 && now_ + bytes > limit_) {
    throw std::bad_alloc();
  }
  shrink_kept(std::max(most_, now_ + bytes) - bytes);
  held_ += bytes;
  now_ += bytes;
  peak_ = std::max(peak_, now_);
  most_ = std::max(most_, now_);
}

void BlockPool::unclaim(std::int64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  held_ -= bytes;
  now_ -= bytes;
}

// The smallest kept block that holds so many bytes and not many more; nullptr: there is none.
void* BlockPool::take_kept(std::size_t bytes) {
  const auto found = kept_blocks_.lower_bound(bytes);
  if (found == kept_blocks_.end() || found->first - bytes > found->first / kSlackDivisor) {
    return nullptr;
  }
  Header* header = found->second;
  kept_blocks_.erase(found);
  return header;
}

// Gives back kept blocks, the largest first, until no more than `most` bytes are held.
void BlockPool::shrink_kept(std::int64_t most) noexcept {
  while (held_ > most && !kept_blocks_.empty()) {
    const auto largest = std::prev(kept_blocks_.end());
    held_ -= static_cast<std::int64_t>(largest->first);
    std::free(largest->second);
    kept_blocks_.erase(largest);
  }
}

void BlockPool::limit(std::int64_t bytes) {
  const std::lock_guard lock(mutex_);
  limit_ = bytes;
  if (bytes > 0) {
    shrink_kept(bytes);
    most_ = std::min(most_, bytes);
  }
}

std::int64_t BlockPool::limit() const {
  const std::lock_guard lock(mutex_);
  return limit_;
}

std::int64_t BlockPool::now() const {
  const std::lock_guard lock(mutex_);
  return now_;
}

std::int64_t BlockPool::peak() const {
  const std::lock_guard lock(mutex_);
  return peak_;
}

void BlockPool::reset_peak() {
  const std::lock_guard lock(mutex_);
  peak_ = now_;
}

std::int64_t BlockPool::kept() const {
  const std::lock_guard lock(mutex_);
  std::int64_t bytes = 0;
  for (const auto& [capacity, header] : kept_blocks_) {
    bytes += static_cast<std::int64_t>(capacity);
  }
  return bytes;
}

void BlockPool::release() noexcept {
  const std::lock_guard lock(mutex_);
  shrink_kept(0);
  most_ = now_;
}

}  // namespace lorascale::train
