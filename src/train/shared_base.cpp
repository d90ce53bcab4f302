#include "train/shared_base.hpp"

#include <spdlog/spdlog.h>

#include <array>

#include "coordinator/memory/leaf_fit.hpp"
#include "train/same_files.hpp"
#include "train/vote.hpp"
#include "workloads/workload.hpp"

namespace lorascale::train {
namespace {

bool insists(const config::RunConfig& config) {
  return config.model.share == config::Share::kNode;
}

// Of settings and device alone, which are the same on all ranks.
bool can_share(const World& world, const config::RunConfig& config) {
  return config.model.share != config::Share::kNone && !config.adapter.trains_base() &&
         world.place.is_cpu() && world.host.size() > 1;
}

void refuse_devices(World& world, const config::RunConfig& config) {
  together(world.host, [&] {
    if (insists(config) && !world.place.is_cpu()) {
      throw_bad_config(
          "model.share: node is for CPUs yet, and the model is on a GPU; set model.share: auto or "
          "none");
    }
  });
}

bool any_node_of_several(World& world) {
  std::array<std::int64_t, 1> most = {world.node.local_size};
  world.host.all_reduce(std::span(most), comm::ReduceOp::kMax);
  return most[0] > 1;
}

// Bytes of the base, the same on all ranks; 0: its kind is not shared.
std::uint64_t agreed_bytes(World& world, const config::RunConfig& config) {
  workloads::BaseModel base;
  together(world.host, [&] { base = workloads::read_base_model(config.model); });
  require_same_files(world, config.model.path, base.fingerprint);
  return base.shapes ? models::bytes_to_settle(base.shapes->file_slots()) : 0;
}

void refuse_if_insisted(const config::RunConfig& config, const std::string& why) {
  if (insists(config)) {
    throw_bad_config("model.share: node is not possible here: " + why +
                     "; set model.share: auto or none");
  }
}

void go_on_without(World& world, const config::RunConfig& config, const std::string& why) {
  together(world.host, [&] { refuse_if_insisted(config, why); });
  if (world.is_root()) {
    spdlog::warn(
        "every rank holds the whole model, for the ranks of a node cannot share it: {}; "
        "model.share: none says that it is meant so",
        why);
  }
}

}  // namespace

models::WeightPlace SharedBase::place(at::Device device) const {
  if (!memory) {
    return device;
  }
  return models::WeightPlace({memory, memory->bytes(), node.local_rank, node.local_size});
}

void SharedBase::seal() const {
  if (memory) {
    memory->make_read_only();
  }
}

SharedBase share_base(World& world, const config::RunConfig& config) {
  refuse_devices(world, config);
  if (!can_share(world, config) || !any_node_of_several(world)) {
    return {};
  }
  const auto bytes = agreed_bytes(world, config);
  if (bytes == 0) {  // a kind that is never shared: under auto nothing to warn of
    together(world.host,
             [&] { refuse_if_insisted(config, "models of its kind are not shared yet"); });
    return {};
  }
  auto shared = comm::share_on_node(world.host, world.node, bytes);
  if (!shared.why_not.empty()) {
    go_on_without(world, config, shared.why_not);
    return {};
  }
  SharedBase base{std::move(shared.memory), world.node};
  if (world.is_root() && base.memory) {
    spdlog::info("one base of {} for {} ranks of a node",
                 coordinator::mebibytes(static_cast<double>(bytes)), base.holders());
  }
  return base;
}

void claim_share(SharedBase& base) {
  if (base.memory) {
    const auto holders = static_cast<std::size_t>(base.holders());
    base.claim = CpuMemoryClaim(
        static_cast<std::int64_t>((base.memory->bytes().size() + holders - 1) / holders));
  }
}

}  // namespace lorascale::train
