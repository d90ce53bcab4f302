#include "train/update_attempt.hpp"

#include <fmt/format.h>

namespace lorascale::train {

UpdateResult run_update(World& world, data::LeafStream& leaves, Updater& updater,
                        FaultInjector& faults, const coordinator::StepPlan& plan,
                        const std::function<Ballot()>& ballot) {
  faults.begin_step(plan.step);
  const auto mine = coordinator::leaves_of_rank(plan.leaves, world.host.rank(), world.host.size());
  leaves.begin_update(plan.first_position, plan.samples, plan.leaf_size, mine.begin, mine.end);
  return updater.run(
      plan, mine, [&] { return leaves.next(); }, ballot);
}

std::string does_not_fit(const coordinator::MemoryFacts& facts) {
  return fmt::format("update {} runs out of memory on rank {} even in leaves of one sample",
                     facts.step, facts.rank);
}

}  // namespace lorascale::train
