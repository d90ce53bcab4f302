// One frozen base for the ranks of a node on CPUs (model.share): it is only read, so they need not
// hold one each. Every rank reads a part of the files into memory that all of them map
// (comm/node_memory.hpp), and computes from the whole once all have read; nothing about it is
// collective afterwards. The files are compared before, for a rank computes from what others read.
#pragma once

#include <cstdint>
#include <memory>

#include "comm/node_memory.hpp"
#include "config/run_config.hpp"
#include "models/weight_place.hpp"
#include "train/tensor_memory.hpp"
#include "train/world.hpp"

namespace lorascale::train {

struct SharedBase {
  std::shared_ptr<comm::NodeMemory> memory;  // null: this rank holds a base of its own
  comm::NodePlace node{};
  // A node's base counts once: each of its ranks has an equal share of it.
  CpuMemoryClaim claim{};

  // Ranks that hold the base together with this one, which is among them.
  [[nodiscard]] int holders() const { return memory ? node.local_size : 1; }
  // Where weights go to, that would else be on `device`.
  [[nodiscard]] models::WeightPlace place(at::Device device) const;
  // When all ranks have read their parts: no rank can change what others compute from.
  void seal() const;
};

// Collective. Nothing is shared where nothing can be: on one rank, on GPUs, where the base is
// trained. Where it should be and the system does not let it, model.share: auto says so and goes
// on without, node is Error(kBadConfig).
SharedBase share_base(World& world, const config::RunConfig& config);

// Counts this rank's share against the memory budget. std::bad_alloc past it.
void claim_share(SharedBase& base);

}  // namespace lorascale::train
