#include "io/parallel_read.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.hpp"

namespace lorascale::io {
namespace {

// Large enough to amortise a call, small enough to spread one big tensor over all threads.
constexpr std::size_t kPieceBytes = std::size_t{8} << 20;

std::vector<ByteRange> cut_into_pieces(std::span<const ByteRange> ranges) {
  std::vector<ByteRange> pieces;
  for (const ByteRange& range : ranges) {
    for (std::size_t start = 0; start < range.destination.size(); start += kPieceBytes) {
      const std::size_t count = std::min(kPieceBytes, range.destination.size() - start);
      pieces.push_back({range.file, range.shown_path, range.offset + start,
                        range.destination.subspan(start, count)});
    }
  }
  return pieces;
}

class Work {
 public:
  explicit Work(std::vector<ByteRange> pieces) : pieces_(std::move(pieces)) {}

  void run() noexcept {
    for (std::size_t i = next_.fetch_add(1); i < pieces_.size(); i = next_.fetch_add(1)) {
      try {
        const ByteRange& piece = pieces_[i];
        read_exactly(*piece.file, piece.offset, piece.destination, *piece.shown_path);
      } catch (...) {
        const std::lock_guard guard(mutex_);
        if (!failure_) {
          failure_ = std::current_exception();
        }
        next_ = pieces_.size();
      }
    }
  }

  [[nodiscard]] std::size_t size() const { return pieces_.size(); }
  void rethrow_failure() const {
    if (failure_) {
      std::rethrow_exception(failure_);
    }
  }

 private:
  std::vector<ByteRange> pieces_;
  std::atomic<std::size_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

}  // namespace

void read_parallel(std::span<const ByteRange> ranges, int threads) {
  LS_ASSERT(threads >= 1);
  Work work(cut_into_pieces(ranges));
  const std::size_t helpers =
      std::min(static_cast<std::size_t>(threads), std::max<std::size_t>(work.size(), 1)) - 1;
  {
    std::vector<std::jthread> pool;
    pool.reserve(helpers);
    try {
      for (std::size_t i = 0; i < helpers; ++i) {
        pool.emplace_back([&work] { work.run(); });
      }
    } catch (const std::system_error&) {
      // A limit on threads: the ones that exist, at least this one, do the work.
    }
    work.run();
  }
  work.rethrow_failure();
}

}  // namespace lorascale::io
