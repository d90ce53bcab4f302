// A run in progress: what its parts (trainer, validation, checkpoints, samples) share. One object
// per rank.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "coordinator/cadence.hpp"
#include "coordinator/coordinator.hpp"
#include "io/run_lock.hpp"
#include "train/faults.hpp"
#include "train/run_record.hpp"
#include "train/session.hpp"
#include "train/world.hpp"

namespace lorascale::train {

struct Run {
  World& world;
  Session& session;
  std::filesystem::path folder;
  FaultInjector faults;
  RunRecord record;
  std::unique_ptr<io::RunLock> lock;                      // rank 0's
  std::optional<coordinator::Coordinator> coordinator{};  // once the run has begun or gone on

  Run(World& world, Session& session);

  // The only way by which the coordinator learns anything: what it is told is recorded, so that no
  // event can happen that a replay would not know. Its answer, true where it gives none.
  bool tell(const coordinator::Event& event);
  // Takes the coordinator's decisions and, on rank 0, writes and says them.
  void write_decisions();
  // Something beside the updates ran out of memory; its step is filled in.
  void tell_aside_out_of_memory(coordinator::AsideMemoryFacts facts);

  [[nodiscard]] coordinator::Progress progress() const;
  // status.json, of the step that the run is at.
  void write_status(const std::string& outcome, ExitCode code, const std::string& message);
};

}  // namespace lorascale::train
