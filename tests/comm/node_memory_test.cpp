// Memory of a node's ranks, on 1, 2 and 3 ranks: what one writes the others see, what fails on one
// fails on all without a hang, and nothing of it is in a file system.
#include "comm/node_memory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>

#include "comm/mpi_communicator.hpp"

namespace lorascale::comm {
namespace {

using testing::HasSubstr;

constexpr std::size_t kBytes = (std::size_t{3} << 20) + 1000;  // no multiple of a page

// A lower limit of this process, until the end of the scope.
class Limit {
 public:
  Limit(__rlimit_resource kind, rlim_t value) : kind_(kind) {
    EXPECT_EQ(::getrlimit(kind_, &before_), 0);
    const rlimit lower{std::min(value, before_.rlim_max), before_.rlim_max};
    EXPECT_EQ(::setrlimit(kind_, &lower), 0);
  }
  ~Limit() { EXPECT_EQ(::setrlimit(kind_, &before_), 0); }
  Limit(const Limit&) = delete;
  Limit& operator=(const Limit&) = delete;

 private:
  __rlimit_resource kind_;
  rlimit before_{};
};

std::set<std::string> files_in(const char* folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

class NodeMemoryTest : public testing::Test {
 protected:
  NodeMemoryTest() : place_(node_place()) {}
  [[nodiscard]] bool shares() const { return place_.local_size > 1; }
  SharedOnNode share(std::uint64_t bytes = kBytes) { return share_on_node(host_, place_, bytes); }
  // What every byte is to be, by its place alone.
  static std::byte value(std::size_t at) { return static_cast<std::byte>((at * 131) >> 7); }

  MpiCommunicator host_{30};
  NodePlace place_;
};

TEST_F(NodeMemoryTest, APlaceNamesTheFirstOfItsNode) {
  EXPECT_EQ(place_.local_size, host_.size());  // the tests run on one node
  EXPECT_EQ(place_.first, 0);
}

TEST_F(NodeMemoryTest, EachWritesAPartAndAllSeeTheWhole) {
  const auto shared = share();
  EXPECT_EQ(shared.why_not, "");
  ASSERT_EQ(shared.memory != nullptr, shares());
  if (!shares()) {
    return;
  }
  const auto bytes = shared.memory->bytes();
  ASSERT_EQ(bytes.size(), kBytes);
  EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; }));
  host_.barrier();
  for (auto i = static_cast<std::size_t>(host_.rank()); i < kBytes;
       i += static_cast<std::size_t>(host_.size())) {
    bytes[i] = value(i);
  }
  host_.barrier();
  shared.memory->make_read_only();
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < kBytes; ++i) {
    wrong += bytes[i] == value(i) ? 0 : 1;
  }
  EXPECT_EQ(wrong, 0U);
}

TEST_F(NodeMemoryTest, AllPagesAreThereAndCountOnce) {
  const auto shared = share();
  if (!shares()) {
    return;
  }
  host_.barrier();
  std::vector<unsigned char> there(kBytes / 4096 + 1);
  ASSERT_EQ(::mincore(shared.memory->bytes().data(), kBytes, there.data()), 0);
  EXPECT_TRUE(std::ranges::all_of(there, [](unsigned char page) { return (page & 1) != 0; }));
}

TEST_F(NodeMemoryTest, AWriteAfterwardsEndsTheWriterAlone) {
  const auto shared = share();
  if (!shares()) {
    return;
  }
  host_.barrier();
  shared.memory->make_read_only();
  const auto bytes = shared.memory->bytes();
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    *const_cast<volatile std::byte*>(bytes.data()) = std::byte{1};
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  EXPECT_EQ(bytes[0], std::byte{0});
}

TEST_F(NodeMemoryTest, ItHasNoNameAndNoDescriptorStays) {
  const auto files = files_in("/dev/shm");
  const auto descriptors = files_in("/proc/self/fd").size();
  host_.barrier();
  auto shared = share();
  host_.barrier();
  EXPECT_EQ(files_in("/dev/shm"), files);
  EXPECT_EQ(files_in("/proc/self/fd").size(), descriptors);
  const auto mapped = [] {
    std::ifstream maps("/proc/self/maps");
    const std::string text((std::istreambuf_iterator<char>(maps)), {});
    return text.find("lorascale-base") != std::string::npos;
  };
  EXPECT_EQ(mapped(), shares());
  shared.memory = nullptr;
  EXPECT_FALSE(mapped());
  host_.barrier();
}

// Nobody goes on with memory that another has not got, and all say why in the same words.
TEST_F(NodeMemoryTest, ARankThatCannotMapItIsNamedOnAllRanks) {
  if (!shares()) {
    return;
  }
  const int last = host_.size() - 1;
  SharedOnNode shared;
  {
    std::optional<Limit> limit;
    if (host_.rank() == last) {
      limit.emplace(RLIMIT_AS, rlim_t{1} << 30);
    }
    shared = share(std::uint64_t{64} << 30);
  }
  EXPECT_EQ(shared.memory, nullptr);
  EXPECT_THAT(shared.why_not, HasSubstr("mmap"));
  std::string roots = shared.why_not;
  host_.broadcast_from_root(roots);
  EXPECT_EQ(shared.why_not, roots);
  EXPECT_NE(share().memory, nullptr);  // and it is no harm to what follows
}

TEST_F(NodeMemoryTest, AFirstRankThatCannotMakeItKeepsNobodyWaiting) {
  if (!shares()) {
    return;
  }
  for (const auto kind : {RLIMIT_NOFILE, RLIMIT_FSIZE}) {
    SharedOnNode shared;
    {
      std::optional<Limit> limit;
      if (host_.rank() == 0) {
        limit.emplace(kind, 3);
      }
      shared = share();
    }
    EXPECT_EQ(shared.memory, nullptr);
    EXPECT_THAT(shared.why_not, HasSubstr("rank 0 ("));
    EXPECT_THAT(shared.why_not, HasSubstr(kind == RLIMIT_FSIZE ? "ulimit -f" : "memfd_create"));
  }
}

// Ranks 0 and 1 as on one node, rank 2 alone on another.
TEST_F(NodeMemoryTest, ARankAloneOnItsNodeSharesNothing) {
  if (host_.size() < 3) {
    return;
  }
  const bool alone = host_.rank() == 2;
  const auto place =
      alone ? NodePlace{.local_rank = 0, .local_size = 1, .first = 2, .host = "there"}
            : NodePlace{.local_rank = host_.rank(), .local_size = 2, .first = 0, .host = "here"};
  const auto shared = share_on_node(host_, place, kBytes);
  EXPECT_EQ(shared.why_not, "");
  EXPECT_EQ(shared.memory != nullptr, !alone);
}

// As in containers of their own, where the same number is another process.
TEST_F(NodeMemoryTest, OtherMemoryIsNotTakenForThatOfTheFirstRank) {
  if (host_.size() < 3) {
    return;
  }
  // Ranks 0 and 2 each make some, and rank 1 comes to that of rank 2, which is larger.
  const auto place =
      host_.rank() == 1
          ? NodePlace{.local_rank = 1, .local_size = 2, .first = 2, .host = "here"}
          : NodePlace{.local_rank = 0, .local_size = 2, .first = host_.rank(), .host = "here"};
  const auto shared = share_on_node(host_, place, host_.rank() == 2 ? 2 * kBytes : kBytes);
  EXPECT_EQ(shared.memory, nullptr);
  EXPECT_THAT(shared.why_not, HasSubstr("rank 1 (here): "));
  EXPECT_THAT(shared.why_not, HasSubstr("is not the memory"));
}

}  // namespace
}  // namespace lorascale::comm
