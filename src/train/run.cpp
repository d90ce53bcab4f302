#include "train/run.hpp"

#include <utility>
#include <variant>

#include "base/error.hpp"

namespace lorascale::train {
namespace {

struct Tell {
  coordinator::Coordinator& coordinator;

  bool operator()(const coordinator::StepFacts& facts) const {
    coordinator.on_step(facts);
    return true;
  }
  bool operator()(const coordinator::EvaluationFacts& facts) const {
    return coordinator.on_evaluation(facts);
  }
  bool operator()(const coordinator::MemoryFacts& facts) const {
    return coordinator.on_out_of_memory(facts);
  }
  bool operator()(const coordinator::AsideMemoryFacts& facts) const {
    coordinator.on_aside_out_of_memory(facts);
    return true;
  }
  bool operator()(const coordinator::LeafFacts& facts) const {
    coordinator.on_leaf_measured(facts);
    return true;
  }
  bool operator()(const coordinator::MovementFacts& facts) const {
    coordinator.on_movement(facts);
    return true;
  }
  bool operator()(const coordinator::PreviewFacts& facts) const {
    coordinator.on_preview(facts);
    return true;
  }
  bool operator()(const coordinator::RecoveryFacts& facts) const {
    coordinator.recover(facts.state);
    return true;
  }
  // What a restored coordinator is made by; its record begins with it (event_record.hpp).
  bool operator()(const coordinator::ResumeFacts& /*facts*/) const {
    LS_ASSERT(false);
    return false;
  }
};

}  // namespace

Run::Run(World& world, Session& session)
    : world(world),
      session(session),
      folder(session.config.run.output_dir),
      faults(session.config.faults, world.host.rank()),
      record(folder, world.is_root()) {}

bool Run::tell(const coordinator::Event& event) {
  const auto before = coordinator->events();
  const bool answer = std::visit(Tell{*coordinator}, event);
  // One that it cannot act upon, as a third failure in leaves of one sample, has not happened to
  // it.
  if (coordinator->events() > before) {
    record.write(event);
  }
  return answer;
}

void Run::write_decisions() {
  record.write(coordinator->take_decisions());
}

void Run::tell_aside_out_of_memory(coordinator::AsideMemoryFacts facts) {
  facts.step = coordinator->steps_done();
  tell(facts);
  write_decisions();
}

coordinator::Progress Run::progress() const {
  return {coordinator->steps_done(), coordinator->samples_seen(), coordinator->elapsed_minutes()};
}

void Run::write_status(const std::string& outcome, ExitCode code, const std::string& message) {
  record.write_status(outcome, code, coordinator ? coordinator->steps_done() : 0,
                      lock ? lock->generation() : 0, message);
}

}  // namespace lorascale::train
