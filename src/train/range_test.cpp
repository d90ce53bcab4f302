#include "train/range_test.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "coordinator/coordinator.hpp"
#include "coordinator/rates/scaling.hpp"
#include "coordinator/step_planner.hpp"
#include "train/saved_state.hpp"
#include "train/signals.hpp"
#include "train/tensor_memory.hpp"
#include "train/update_attempt.hpp"

namespace lorascale::train {
namespace {

constexpr std::int64_t kUsualUpdates = 100;

// The run's own recipe without what would change its batch or end it early.
coordinator::Recipe recipe_of_test(const Session& session) {
  coordinator::Recipe recipe = session.recipe;
  if (recipe.rule == coordinator::ScaleRule::kAdascale) {
    throw_bad_config(fmt::format(
        "scale.rule: adascale measures what optimizer.lr is multiplied by as the run goes; find "
        "the rate at batch.reference, where that is 1: --set scale.rule=none --set batch.global={}",
        recipe.reference_batch));
  }
  recipe.batch_policy = coordinator::BatchPolicyKind::kFixed;
  recipe.surge_cap = recipe.surge_cap && recipe.critical_batch > 0;
  recipe.noise_horizon_samples = 0;
  recipe.divergence_z = 0;
  recipe.max_skipped_in_row = 0;
  return recipe;
}

coordinator::LrFinderSettings settings_in_force(const RangeTestSettings& asked,
                                                const coordinator::Coordinator& coordinator) {
  const auto available = coordinator.steps_expected();
  if (available < coordinator::LrFinder::kLeastUpdates) {
    throw_bad_config(
        fmt::format("the run has {} updates, and a range test needs {} to show a curve; give it a "
                    "longer budget (--set budget='{} steps'), more data or a smaller batch.global",
                    available, coordinator::LrFinder::kLeastUpdates, kUsualUpdates));
  }
  if (asked.updates && *asked.updates > available) {
    throw_bad_config(
        fmt::format("--updates {} is more than the {} of the run; use at most {}, or a longer "
                    "budget (--set budget='{} steps')",
                    *asked.updates, available, available, *asked.updates));
  }
  coordinator::LrFinderSettings settings;
  settings.from = asked.from;
  settings.to = asked.to;
  settings.updates = asked.updates.value_or(std::min(kUsualUpdates, available));
  return settings;
}

// The updates of the run from its start, at rates of the caller's.
class Prober {
 public:
  Prober(World& world, Session& session, const coordinator::Recipe& recipe)
      : world_(world),
        coordinator_(recipe, world.host.size()),
        faults_(session.config.faults, world.host.rank()),
        updater_(world, session, faults_),
        leaves_(session.leaves()) {}

  // Makes the next update, in leaves that fit. `lr_at_k1`: the rate before the rule's factor for
  // the update's own size, which is smaller at the end of an epoch.
  UpdateResult update(double lr_at_k1) {
    while (true) {
      auto plan = *coordinator_.next_step();
      plan.lr = lr_at_k1 * plan.lr_multiplier;
      auto result = run_update(world_, leaves_, updater_, faults_, plan, [] {
        return Ballot{stop_was_requested(), 0, false};
      });
      if (!result.out_of_memory) {
        leaf_size_ = plan.leaf_size;
        coordinator_.on_step(result.facts);
        return result;
      }
      shrink(*result.out_of_memory);
    }
  }

  [[nodiscard]] std::int64_t leaf_size() const { return leaf_size_; }  // of the latest update
  [[nodiscard]] std::int64_t samples_seen() const { return coordinator_.samples_seen(); }

 private:
  void shrink(const coordinator::MemoryFacts& facts) {
    release_cached_memory(world_.place);
    const bool fits = coordinator_.on_out_of_memory(facts);
    together(world_.host, [&] {
      if (!fits) {
        throw_bad_config(does_not_fit(facts) + "; " + memory_remedy(world_.place));
      }
    });
    for (const auto& decision : coordinator_.take_decisions()) {
      if (world_.is_root() && decision.kind == "memory") {
        spdlog::warn("{}: {}", decision.kind, decision.reason);
      }
    }
  }

  World& world_;
  coordinator::Coordinator coordinator_;
  FaultInjector faults_;
  Updater updater_;
  data::LeafStream leaves_;
  std::int64_t leaf_size_ = 0;
};

double loss_of(const UpdateResult& result) {
  return result.facts.applied ? result.facts.loss : std::numeric_limits<double>::quiet_NaN();
}

void report_progress(const World& world, std::int64_t done, std::int64_t updates, bool last,
                     const std::string& text) {
  if (world.is_root() && (done % 10 == 0 || last)) {
    spdlog::info("update {}/{}  {}", done, updates, text);
  }
}

// What the samples of each update lose before anything is learned: the same updates, dropout
// included, at a rate of 0. Moves the moments of the optimizer. Fewer where a stop was requested.
std::vector<double> untrained_losses(World& world, Session& session,
                                     const coordinator::Recipe& recipe, std::int64_t updates) {
  Prober prober(world, session, recipe);
  std::vector<double> losses;
  for (bool stop = false; !stop && std::ssize(losses) < updates;) {
    const auto result = prober.update(0);
    losses.push_back(loss_of(result));
    stop = result.stop_requested && std::ssize(losses) < updates;
    report_progress(world, std::ssize(losses), updates, stop || std::ssize(losses) == updates,
                    fmt::format("untrained loss {:.4f}", losses.back()));
  }
  return losses;
}

// The updates of the test itself. Leaves the session changed.
void probe(World& world, Session& session, const coordinator::Recipe& recipe,
           const std::vector<double>& untrained, coordinator::LrFinder& finder, RangeTest& test) {
  // Samples whose loss is not finite untrained say nothing of a rate.
  double level = 0;
  std::int64_t finite = 0;
  for (const double loss : untrained) {
    level += std::isfinite(loss) ? loss : 0;
    finite += std::isfinite(loss) ? 1 : 0;
  }
  level /= static_cast<double>(std::max<std::int64_t>(1, finite));
  Prober prober(world, session, recipe);
  double loss = level;
  while (const auto lr = finder.next_lr()) {
    const auto result = prober.update(*lr / test.factor);
    if (const double before = untrained[static_cast<std::size_t>(test.updates)];
        std::isfinite(before)) {
      loss = loss_of(result) - before + level;
    } else if (world.is_root()) {
      spdlog::warn("update {} is not finite at a rate of 0 either; it does not count",
                   test.updates + 1);
    }
    finder.report(loss);
    ++test.updates;
    report_progress(world, test.updates, test.settings.updates, !finder.next_lr(),
                    fmt::format("lr {:.3g}  loss {:.4f}", *lr, loss));
    if (result.stop_requested) {
      test.stopped = finder.next_lr().has_value();
      break;
    }
  }
  test.leaf_size = prober.leaf_size();
  test.samples = prober.samples_seen();
}

}  // namespace

RangeTest run_range_test(World& world, Session& session, const RangeTestSettings& settings) {
  RangeTest test;
  std::optional<coordinator::Recipe> recipe;
  std::optional<coordinator::LrFinder> finder;
  together(world.host, [&] {
    recipe.emplace(recipe_of_test(session));
    test.settings =
        settings_in_force(settings, coordinator::Coordinator(*recipe, world.host.size()));
    finder.emplace(test.settings);
    test.batch = coordinator::largest_update(*recipe, recipe->global_batch);
    test.factor = coordinator::scaled_rates(*recipe, test.batch).multiplier;
  });
  std::optional<SavedState> saved;
  together(world.host, [&] {
    test.state_before = state_digest(session.state());
    saved.emplace(session.state());
  });
  const auto untrained = untrained_losses(world, session, *recipe, test.settings.updates);
  saved->restore();
  if (std::ssize(untrained) == test.settings.updates) {
    probe(world, session, *recipe, untrained, *finder, test);
    saved->restore();
  } else {
    test.stopped = true;
  }
  test.state_after = state_digest(session.state());
  LS_ASSERT(test.state_after == test.state_before);
  test.range = finder->result();
  test.curve = finder->curve();
  return test;
}

}  // namespace lorascale::train
