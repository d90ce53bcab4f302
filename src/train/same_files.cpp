#include "train/same_files.hpp"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "base/hash.hpp"
#include "train/vote.hpp"

namespace lorascale::train {

void require_same_files(World& world, const std::string& what, const std::string& fingerprint) {
  const std::array<std::uint64_t, 1> digest = {fnv1a64(fingerprint)};
  std::vector<std::uint64_t> all(static_cast<std::size_t>(world.host.size()));
  world.host.all_gather(std::span<const std::uint64_t>(digest), std::span(all));
  // Against rank 0's, by all ranks alike: the message is the same on all of them.
  std::string others;
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] != all[0]) {
      others += (others.empty() ? "" : ", ") + std::to_string(rank);
    }
  }
  together(world.host, [&] {
    if (!others.empty()) {
      throw_bad_input(
          fmt::format("{} on rank {} is not the file that rank 0 sees; copy it to every node or "
                      "use a shared file system",
                      what, others));
    }
  });
}

}  // namespace lorascale::train
