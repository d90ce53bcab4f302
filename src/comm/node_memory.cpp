#include "comm/node_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/heartbeat.hpp"

namespace lorascale::comm {
namespace {

constexpr std::size_t kPiece = std::size_t{256} << 20;  // between two beats

#ifndef MADV_POPULATE_WRITE
constexpr int MADV_POPULATE_WRITE = 23;
#endif

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void fail(const std::string& what) {
  throw Error(ExitCode::kInternal, what + ": " + std::strerror(errno));
}

// What a rank tells the others of its file; zeros where it has none. The identity is compared: in
// another PID namespace, the same number is another process.
struct Offer {
  std::int64_t process = 0, descriptor = 0, device = 0, inode = 0;
};

std::vector<Offer> gather_offers(Communicator& host, const Offer& mine) {
  const std::array words = {mine.process, mine.descriptor, mine.device, mine.inode};
  std::vector<std::int64_t> all(words.size() * static_cast<std::size_t>(host.size()));
  host.all_gather(std::span<const std::int64_t>(words), std::span(all));
  std::vector<Offer> offers;
  for (auto at = all.cbegin(); at != all.cend();) {
    offers.push_back({*at++, *at++, *at++, *at++});
  }
  return offers;
}

struct stat status_of(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    fail("fstat");
  }
  return status;
}

Descriptor make_file(std::uint64_t bytes, Offer& offer) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < bytes) {
    errno = EFBIG;  // to try would end the process with SIGXFSZ
    fail("ulimit -f is too low for it");
  }
  Descriptor file(::memfd_create("lorascale-base", MFD_CLOEXEC));
  if (file.get() < 0) {
    fail("memfd_create");
  }
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    fail("ftruncate to " + std::to_string(bytes) + " bytes");
  }
  const auto status = status_of(file.get());
  offer = {::getpid(), file.get(), static_cast<std::int64_t>(status.st_dev),
           static_cast<std::int64_t>(status.st_ino)};
  return file;
}

Descriptor open_file(std::uint64_t bytes, const Offer& offer) {
  const std::string path =
      "/proc/" + std::to_string(offer.process) + "/fd/" + std::to_string(offer.descriptor);
  Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (file.get() < 0) {
    fail("cannot open " + path + " of the node's first rank");
  }
  const auto status = status_of(file.get());
  if (static_cast<std::int64_t>(status.st_dev) != offer.device ||
      static_cast<std::int64_t>(status.st_ino) != offer.inode ||
      static_cast<std::uint64_t>(status.st_size) != bytes) {
    throw Error(ExitCode::kInternal, path +
                                         " is not the memory of the node's first rank; do the "
                                         "ranks run in containers of their own?");
  }
  return file;
}

std::shared_ptr<NodeMemory> map(const Descriptor& file, std::uint64_t bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) {
    fail("mmap of " + std::to_string(bytes) + " bytes");
  }
  ::madvise(data, bytes, MADV_HUGEPAGE);  // where the system allows it to such memory
  return std::make_shared<NodeMemory>(data, bytes);
}

// Gives the part of this rank its pages, near to where it runs.
void take_pages(const NodeMemory& memory, const Descriptor& file, const NodePlace& place) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto all = memory.bytes();
  const auto border = [&](int part) {
    const auto parts = static_cast<std::size_t>(place.local_size);
    return part == place.local_size
               ? all.size()
               : all.size() / parts * static_cast<std::size_t>(part) / page * page;
  };
  const auto end = border(place.local_rank + 1);
  for (auto first = border(place.local_rank); first < end; first += kPiece) {
    beat("taking memory for the model");
    const auto size = std::min(kPiece, end - first);
    if (::madvise(all.data() + first, size, MADV_POPULATE_WRITE) == 0) {
      continue;
    }
    // Linux before 5.14 does not know it.
    if (errno != EINVAL ||
        ::fallocate(file.get(), 0, static_cast<off_t>(first), static_cast<off_t>(size)) != 0) {
      fail("no memory for " + std::to_string(end - first) + " bytes of it");
    }
  }
}

std::optional<std::string> failure_of(const std::function<void()>& action) {
  try {
    action();
    return std::nullopt;
  } catch (const Error& error) {
    return error.what();
  }
}

// The failure of the lowest rank that has one, on all ranks; empty: there is none.
std::string first_failure(Communicator& host, const NodePlace& place,
                          const std::optional<std::string>& mine) {
  const std::array<std::int64_t, 1> failed = {mine ? 1 : 0};
  std::vector<std::int64_t> all(static_cast<std::size_t>(host.size()));
  host.all_gather(std::span<const std::int64_t>(failed), std::span(all));
  const auto first = std::find(all.begin(), all.end(), 1) - all.begin();
  if (first == std::ssize(all)) {
    return {};
  }
  const auto rank = static_cast<int>(first);
  std::string text = mine.value_or("");
  if (rank == host.rank()) {
    text = "rank " + std::to_string(rank) + " (" + place.host + "): " + text;
  }
  std::array<std::uint64_t, 1> size = {text.size()};
  host.broadcast(std::span(size), rank);
  text.resize(size[0]);
  host.broadcast(std::span(reinterpret_cast<std::uint8_t*>(text.data()), text.size()), rank);
  return text;
}

}  // namespace

NodeMemory::~NodeMemory() {
  ::munmap(data_, bytes_);
}

void NodeMemory::make_read_only() const {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  // A system that refuses has lost a guard, nothing else.
  static_cast<void>(::mprotect(data_, bytes_, PROT_READ));
}

SharedOnNode share_on_node(Communicator& host, const NodePlace& place, std::uint64_t bytes) {
  Descriptor file;
  Offer mine;
  SharedOnNode result;
  // A step of the ranks that share; all ranks know how it went, and go on to the next or give up.
  const auto step = [&](const std::function<void()>& action) {
    const auto failed = place.local_size > 1 ? failure_of(action) : std::nullopt;
    result.why_not = first_failure(host, place, failed);
    if (!result.why_not.empty()) {
      result.memory = nullptr;
    }
    return result.why_not.empty();
  };
  const bool made = step([&] {
    if (place.local_rank == 0) {
      file = make_file(bytes, mine);
    }
  });
  if (!made) {
    return result;
  }
  const auto offers = gather_offers(host, mine);
  const bool mapped = step([&] {
    if (place.local_rank > 0) {
      file = open_file(bytes, offers[static_cast<std::size_t>(place.first)]);
    }
    result.memory = map(file, bytes);
  });
  if (mapped) {
    step([&] { take_pages(*result.memory, file, place); });
  }
  return result;
}

}  // namespace lorascale::comm
