#include "coordinator/batch/factorise.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.hpp"

namespace lorascale::coordinator {
namespace {

void check_arguments(std::int64_t global_batch, int world_size, std::int64_t leaf_size) {
  if (global_batch < 1) {
    throw_bad_config(fmt::format("batch.global is {}; use 1 or more", global_batch));
  }
  if (world_size < 1) {
    throw_bad_config(fmt::format("the world size is {}; start 1 rank or more", world_size));
  }
  if (leaf_size < 1) {
    throw_bad_config(fmt::format("batch.micro is {}; use 1 or more, or auto", leaf_size));
  }
}

// The largest divisor of `number` that is at most `limit`, which is 1 or more.
std::int64_t divisor_at_most(std::int64_t number, std::int64_t limit) {
  std::int64_t divisor = std::min(number, limit);
  while (number % divisor != 0) {
    --divisor;
  }
  return divisor;
}

Factorisation with_leaf(std::int64_t global_batch, int world_size, std::int64_t leaf_size) {
  Factorisation result;
  result.global_batch = global_batch;
  result.leaf_size = leaf_size;
  result.leaves = global_batch / leaf_size;
  result.world_size = world_size;
  result.min_leaves_per_rank = result.leaves / world_size;
  result.max_leaves_per_rank =
      result.min_leaves_per_rank + (result.leaves % world_size != 0 ? 1 : 0);
  result.idle_ranks = std::max<std::int64_t>(0, world_size - result.leaves);
  return result;
}

}  // namespace

double Factorisation::balance() const {
  return static_cast<double>(leaves) /
         (static_cast<double>(world_size) * static_cast<double>(max_leaves_per_rank));
}

Factorisation factorise(std::int64_t global_batch, int world_size, std::int64_t max_leaf_size) {
  check_arguments(global_batch, world_size, max_leaf_size);
  const std::int64_t no_idle_rank = std::max<std::int64_t>(1, global_batch / world_size);
  const std::int64_t leaf = divisor_at_most(global_batch, std::min(max_leaf_size, no_idle_rank));
  return with_leaf(global_batch, world_size, leaf);
}

std::optional<std::string> leaf_contradiction(std::int64_t global_batch, std::int64_t leaf_size) {
  if (global_batch % leaf_size == 0) {
    return std::nullopt;
  }
  const std::int64_t below = global_batch / leaf_size * leaf_size;
  const std::string below_or = below > 0 ? fmt::format("{} or ", below) : "";
  const std::int64_t smaller = divisor_at_most(global_batch, leaf_size);
  // Divisors pair up: the smallest one above b is B over the largest one below B / b.
  const std::int64_t quotient = global_batch / leaf_size;
  const std::string larger =
      quotient > 0 ? fmt::format(" or {}", global_batch / divisor_at_most(global_batch, quotient))
                   : "";
  return fmt::format(
      "batch.micro {} does not divide batch.global {}; use batch.global {}{}, or batch.micro {}{}",
      leaf_size, global_batch, below_or, below + leaf_size, smaller, larger);
}

Factorisation factorise_by_leaf(std::int64_t global_batch, int world_size, std::int64_t leaf_size) {
  check_arguments(global_batch, world_size, leaf_size);
  if (const auto contradiction = leaf_contradiction(global_batch, leaf_size)) {
    throw_bad_config(*contradiction);
  }
  return with_leaf(global_batch, world_size, leaf_size);
}

LeafRange leaves_of_rank(std::int64_t leaves, int rank, int world_size) {
  LS_ASSERT(leaves >= 0 && world_size >= 1 && rank >= 0 && rank < world_size);
  // The first `rest` ranks own one leaf more than the others.
  const std::int64_t share = leaves / world_size;
  const std::int64_t rest = leaves % world_size;
  const std::int64_t begin = rank * share + std::min<std::int64_t>(rank, rest);
  return {begin, begin + share + (rank < rest ? 1 : 0)};
}

}  // namespace lorascale::coordinator
