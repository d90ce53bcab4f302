#include "train/leaf_probe.hpp"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "coordinator/coordinator.hpp"
#include "train/first_time.hpp"
#include "train/stopwatch.hpp"
#include "train/tensor_memory.hpp"
#include "train/vote.hpp"

namespace lorascale::train {
namespace {

using coordinator::LeafMeasurement;
using coordinator::LeafTable;
using coordinator::mebibytes;
using coordinator::RankMemory;

// How often a leaf is timed; once where it takes so long that noise is of no account.
constexpr int kRepeats = 3;
constexpr double kLongRehearsal = 2;  // seconds
// A search for the fastest leaf may take this long, beyond which it would cost more than it gains.
constexpr double kLongSearch = 10;  // seconds

bool validates(const Session& session) {
  return session.workload->validation() != nullptr && session.config.evaluate.every.value > 0;
}

LeafMeasurement rehearse(World& world, Session& session, Updater& updater, std::int64_t leaf_size,
                         const coordinator::Recipe& recipe, const ProbeSettings& settings) {
  const std::int64_t leaves = (recipe.global_batch + leaf_size - 1) / leaf_size;
  auto mine =
      coordinator::leaves_of_rank(leaves, world.host.rank() % settings.ranks, settings.ranks);
  if (mine.begin == mine.end) {
    mine = {0, 1};
  }
  LeafMeasurement result{leaf_size, true};
  const auto leaf = data::heaviest_leaf(session.workload->train(), session.key(), leaf_size);
  const bool timed = settings.aim != coordinator::LeafAim::kLargest;
  std::vector<double> seconds;
  double all = 0;
  do {
    const Rehearsal seen = updater.rehearse(*leaf, leaves, mine);
    result.compute = std::max(result.compute, seen.compute);
    result.rest = std::max(result.rest, seen.rest);
    seconds.push_back(seen.seconds);
    all += seen.seconds;
  } while (timed && std::ssize(seconds) < kRepeats && all < kLongRehearsal);
  std::ranges::sort(seconds);
  result.seconds = seconds[0];
  result.noise = seconds.size() > 1 ? seconds[1] / std::max(seconds[0], 1e-9) - 1 : 0;
  if (validates(session)) {
    const at::NoGradGuard no_grad;
    reset_peak_memory(world.place);
    static_cast<void>(session.model().evaluate(
        *data::heaviest_leaf(*session.workload->validation(), session.key(), leaf_size)));
    const auto peak = static_cast<double>(tensor_memory(world.place).peak);
    result.compute = std::max(result.compute, peak);
  }
  return result;
}

// One leaf on every rank: what this rank saw, and whether it fits on all of them.
LeafMeasurement measure(World& world, Session& session, Updater& updater, std::int64_t leaf_size,
                        const coordinator::Recipe& recipe, const ProbeSettings& settings,
                        double budget, bool* fits_everywhere) {
  LeafMeasurement mine{leaf_size, false};
  Ballot ballot;
  const auto error =
      attempt([&] { mine = rehearse(world, session, updater, leaf_size, recipe, settings); },
              &ballot.out_of_memory);
  if (ballot.out_of_memory || (budget > 0 && mine.peak() > budget)) {
    mine = {leaf_size, false};
    ballot.out_of_memory = true;
    release_cached_memory(world.place);
  }
  *fits_everywhere = vote(world.host, ballot, error).out_of_memory == 0;
  return mine;
}

// Every rank's table on every rank. All have measured the same leaves.
std::vector<RankMemory> gather(World& world, const RankMemory& mine) {
  std::vector<double> row = {mine.budget, mine.model, mine.held};
  for (const auto& leaf : mine.measured) {
    row.insert(row.end(),
               {leaf.fits ? 1.0 : 0.0, leaf.compute, leaf.rest, leaf.seconds, leaf.noise});
  }
  std::vector<double> all(row.size() * static_cast<std::size_t>(world.host.size()));
  world.host.all_gather(std::span<const double>(row), std::span(all));
  std::vector<RankMemory> ranks;
  for (auto at = all.cbegin(); at != all.cend();) {
    RankMemory rank{*at++, *at++, *at++, {}};
    for (const auto& leaf : mine.measured) {
      const bool fits = *at++ != 0;
      rank.measured.push_back({leaf.leaf_size, fits, *at++, *at++, *at++, *at++});
    }
    ranks.push_back(std::move(rank));
  }
  return ranks;
}

// Of this rank: where ranks of a node share them, its share.
double model_bytes(Session& session) {
  double bytes = 0;
  for (const auto& slot : session.model().parameter_slots()) {
    bytes += static_cast<double>(slot.value->nbytes());
  }
  return bytes / session.base.holders();
}

double budget_here(World& world) {
  double budget = 0;
  together(world.host, [&] { budget = memory_budget(world.place); });
  return budget;
}

bool chosen_by_speed(const Session& session) {
  return session.config.run.reduction != config::Reduction::kExact;
}

}  // namespace

bool any_limit(World& world) {
  std::array<double, 1> most = {budget_here(world)};
  world.host.all_reduce(std::span(most), comm::ReduceOp::kMax);
  return most[0] > 0;
}

LeafTable measure_leaves(World& world, Session& session, Updater& updater,
                         const coordinator::Recipe& recipe, const ProbeSettings& settings) {
  std::optional<FirstTime> first_time;
  if (!world.place.is_cpu()) {
    updater.warm_up(recipe.global_batch);  // what NCCL and cuBLAS take is no leaf's any more
    first_time.emplace(world, "measuring leaves");
  }
  coordinator::LeafSearch search(settings.usable, settings.aim);
  RankMemory mine{budget_here(world),
                  model_bytes(session),
                  static_cast<double>(tensor_memory(world.place).now),
                  {}};
  LeafTable table{settings.usable, 0, {}, recipe.global_batch, settings.ranks};
  double taken = 0;  // seconds, of the slowest rank
  for (auto leaf = search.next(); leaf; leaf = search.next()) {
    bool fits = false;
    Stopwatch watch;
    mine.measured.push_back(
        measure(world, session, updater, *leaf, recipe, settings, mine.budget, &fits));
    std::array<double, 1> slowest = {watch.lap() / 1000};
    world.host.all_reduce(std::span(slowest), comm::ReduceOp::kMax);
    taken += slowest[0];
    std::array<std::int64_t, 1> predicted = {mine.line().largest_leaf(mine.budget)};
    world.host.all_reduce(std::span(predicted), comm::ReduceOp::kMin);
    table.ranks = gather(world, mine);
    search.on_measured(*leaf, fits, predicted[0],
                       fits ? table.speeds().back() : coordinator::LeafSpeed{});
    if (settings.aim == coordinator::LeafAim::kFastest && taken > kLongSearch &&
        search.largest() > 0) {
      break;
    }
  }
  table.chosen = settings.aim == coordinator::LeafAim::kLargest
                     ? search.largest()
                     : coordinator::fastest_leaf(table.speeds());
  release_cached_memory(world.place);
  reset_peak_memory(world.place);
  return table;
}

std::vector<std::int64_t> auto_leaves(const Session& session, const coordinator::Recipe& recipe,
                                      int ranks) {
  std::int64_t most = session.workload->enough_samples();
  if (recipe.noise_horizon_samples > 0) {
    most = std::min(most, recipe.global_batch / 2);
  }
  return coordinator::usable_leaves(recipe, ranks, most);
}

void require_leaf(World& world, const Session& session, const LeafTable& table) {
  together(world.host, [&] {
    if (table.chosen > 0) {
      return;
    }
    std::size_t rank = 0;
    while (rank + 1 < table.ranks.size() && table.ranks[rank].of(1)) {
      ++rank;
    }
    const auto& memory = table.ranks[rank];
    throw_bad_config(fmt::format(
        "not even a leaf of one sample fits into memory on rank {}: {} are there and {} are taken "
        "before it; set {}{}",
        rank, memory.budget > 0 ? mebibytes(memory.budget) : "too few", mebibytes(memory.held),
        session.workload->words().less,
        session.model().device().is_cpu() ? ", or raise memory.budget_mib" : ""));
  });
}

std::optional<LeafTable> choose_leaf(World& world, Session& session, Updater& updater,
                                     const coordinator::Recipe& recipe, int ranks) {
  using coordinator::LeafAim;
  const bool by_speed = chosen_by_speed(session);
  if (!by_speed && !any_limit(world)) {
    return std::nullopt;
  }
  auto table = measure_leaves(world, session, updater, recipe,
                              {auto_leaves(session, recipe, ranks),
                               by_speed ? LeafAim::kFastest : LeafAim::kLargest, ranks});
  require_leaf(world, session, table);
  return table;
}

std::optional<coordinator::LeafFacts> settle_leaf(World& world, Session& session, Updater& updater,
                                                  const std::string* saved_state) {
  auto& recipe = session.recipe;
  const int ranks = world.host.size();
  std::int64_t saved = 0;
  if (saved_state != nullptr) {
    together(world.host, [&] { saved = coordinator::Coordinator::saved_leaf_size(*saved_state); });
    const bool busy = saved * ranks <= recipe.global_batch;
    if (busy || session.config.run.reduction == config::Reduction::kExact) {
      const bool fits =
          !any_limit(world) || measure_leaves(world, session, updater, recipe,
                                              {{saved}, coordinator::LeafAim::kLargest, ranks})
                                       .chosen > 0;
      if (fits) {
        recipe.leaf_size = saved;
        return std::nullopt;
      }
    }
  }
  const auto start = std::chrono::steady_clock::now();
  const auto table = choose_leaf(world, session, updater, recipe, ranks);
  if (!table) {
    return std::nullopt;
  }
  if (world.is_root()) {
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    spdlog::info("{} leaves measured in {:.1f} s", table->ranks[0].measured.size(), taken.count());
  }
  recipe.leaf_size = table->chosen;
  return table->facts(chosen_by_speed(session));
}

}  // namespace lorascale::train
