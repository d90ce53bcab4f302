// Memory of CPU tensors: 64-byte aligned blocks that are counted, limited and kept for reuse, since
// the kernel takes a seventh of a bf16 update to give pages and to clear them. What lives and what
// is kept never take more together than what lived at once before, so keeping costs no memory
// beyond the peak, and a limit holds for both. Safe for threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace lorascale::train {

class BlockPool {
 public:
  static constexpr std::size_t kAlignment = 64;
  // Smaller blocks are the C library's affair, which keeps them itself.
  static constexpr std::size_t kSmallestKept = std::size_t{64} << 10;
  // A kept block serves requests down to 7/8 of its size.
  static constexpr std::size_t kSlackDivisor = 8;

  BlockPool() = default;
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool() { release(); }

  // nullptr for 0 bytes. std::bad_alloc past the limit or where the system has no more.
  void* allocate(std::size_t bytes);
  void free(void* block) noexcept;  // of allocate; nullptr is allowed

  // Counts memory that comes from elsewhere as blocks are counted. std::bad_alloc past the limit.
  void claim(std::int64_t bytes);
  void unclaim(std::int64_t bytes) noexcept;

  void limit(std::int64_t bytes);  // 0: none
  std::int64_t limit() const;
  // Bytes asked for by what lives now, and the most since the last reset_peak.
  std::int64_t now() const;
  std::int64_t peak() const;
  void reset_peak();
  std::int64_t kept() const;  // bytes that wait for reuse
  void release() noexcept;    // gives back what is kept

 private:
  struct Header;
  void* take_kept(std::size_t bytes);
  void shrink_kept(std::int64_t most) noexcept;

  mutable std::mutex mutex_;
  std::multimap<std::size_t, Header*> kept_blocks_;  // by capacity in bytes
  std::int64_t now_ = 0, peak_ = 0, limit_ = 0;
  std::int64_t held_ = 0;  // capacities of what lives and of what is kept
  std::int64_t most_ = 0;  // the most that lived at once since release()
};

}  // namespace lorascale::train
