#include "train/snapshot.hpp"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/safetensors_header.hpp"
#include "io/safetensors_writer.hpp"
#include "io/strict_json.hpp"
#include "nn/tensor_bytes.hpp"
#include "train/tensor_memory.hpp"

namespace lorascale::train {
namespace {

constexpr const char* kStateFile = "state.json";
constexpr const char* kTensorsFile = "tensors.safetensors";
constexpr int kVersion = 1;

nlohmann::json to_json(const SnapshotFields& fields) {
  return {{"version", kVersion},
          {"step", fields.step},
          {"samples", fields.samples},
          {"world_size", fields.world_size},
          {"config", fields.config},
          {"data_fingerprint", fields.data_fingerprint},
          {"model_fingerprint", fields.model_fingerprint},
          {"coordinator", fields.coordinator_state}};
}

SnapshotFields from_json(const std::string& text, const std::string& where) {
  const auto json = io::parse_json(text, where);
  const io::JsonObject object(json, where);
  if (object.integer("version") != kVersion) {
    object.fail("version", "is not one that this program reads; use the program that wrote it");
  }
  SnapshotFields fields;
  fields.step = object.integer("step", 0);
  fields.samples = object.integer("samples", 0);
  fields.world_size = static_cast<int>(object.integer("world_size", 1, 1 << 24));
  fields.config = object.text("config");
  fields.data_fingerprint = object.text("data_fingerprint");
  fields.model_fingerprint = object.text("model_fingerprint");
  fields.coordinator_state = object.text("coordinator");
  return fields;
}

std::string as_text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void fill_tensors(const std::vector<std::byte>& file, const std::string& where,
                  const std::vector<optim::Optimizer::NamedTensor>& tensors) {
  std::uint64_t header_bytes = 0;
  LS_ASSERT(file.size() >= sizeof(header_bytes));
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  const auto header = io::parse_safetensors_header(
      std::string_view(reinterpret_cast<const char*>(file.data()) + 8, header_bytes),
      file.size() - 8 - header_bytes, where);
  for (const auto& [name, tensor] : tensors) {
    const io::TensorInfo* found = nullptr;
    for (const auto& info : header.tensors) {
      found = info.name == name ? &info : found;
    }
    if (found == nullptr || found->bytes() != tensor.nbytes()) {
      throw_bad_config(fmt::format(
          "{}: '{}' does not fit this adapter and optimizer; the run folder belongs to another run",
          where, name));
    }
    at::Tensor host = at::empty(tensor.sizes(), tensor.options().device(at::kCPU));
    std::memcpy(host.data_ptr(), file.data() + 8 + header_bytes + found->begin, found->bytes());
    at::Tensor(tensor).copy_(host);
  }
}

}  // namespace

SnapshotFields read_snapshot_fields(const io::Checkpoint& checkpoint) {
  return from_json(as_text(checkpoint.read(kStateFile)),
                   (checkpoint.folder() / kStateFile).string());
}

std::filesystem::path save_snapshot(const std::filesystem::path& checkpoints,
                                    const SnapshotFields& fields, const TrainedState& state,
                                    const io::RunLock& lock, io::Existing existing) {
  std::vector<at::Tensor> host;  // keeps the bytes alive
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [name, tensor] : state.tensors()) {
    host.push_back(tensor.cpu().contiguous());
    if (!host.back().isfinite().all().item<bool>()) {
      throw Error(ExitCode::kDiverged, "no checkpoint is written at step " +
                                           std::to_string(fields.step) + ": '" + name +
                                           "' holds values that are not finite");
    }
    tensors.push_back(
        {name, io::Dtype::kF32, host.back().sizes().vec(), nn::bytes_of(host.back())});
  }
  const auto layout = io::lay_out_safetensors(tensors, {}, kTensorsFile);
  std::vector<std::span<const std::byte>> pieces = {std::as_bytes(std::span(layout.head))};
  pieces.insert(pieces.end(), layout.data.begin(), layout.data.end());
  io::CheckpointWriter writer(checkpoints, fields.step, lock.generation());
  writer.add(kTensorsFile, pieces);
  writer.add(kStateFile, std::string_view(to_json(fields).dump(1)));
  const nlohmann::json summary = {{"samples", fields.samples}, {"world_size", fields.world_size}};
  return writer.commit(
      summary.dump(), [&] { lock.check_still_owner(); }, existing);
}

std::optional<SnapshotFields> load_newest_snapshot(
    World& world, const std::filesystem::path& checkpoints, const TrainedState& state,
    const std::function<void(const SnapshotFields&)>& check, std::optional<std::int64_t> in_vain) {
  std::vector<std::byte> fields_text, tensors;
  std::string where = checkpoints.string();
  root_alone(world.host, [&] {
    auto newest = io::find_newest_valid(checkpoints);
    if (in_vain && newest.checkpoint && newest.checkpoint->step() == *in_vain) {
      if (auto older = io::find_newest_valid(checkpoints, *in_vain); older.checkpoint) {
        newest = std::move(older);
      }
    }
    for (const auto& skipped : newest.skipped) {
      spdlog::warn("checkpoint {} is skipped: {}", skipped.folder.string(), skipped.reason);
    }
    if (newest.checkpoint) {
      fields_text = newest.checkpoint->read(kStateFile);
      tensors = newest.checkpoint->read(kTensorsFile);
      where = newest.checkpoint->folder().string();
    } else if (!newest.skipped.empty()) {
      throw_bad_input(checkpoints.string() +
                      ": every checkpoint is damaged (newest: " + newest.skipped.front().reason +
                      "); restore one, or start again in another run.output_dir");
    }
  });
  world.host.broadcast_from_root(fields_text);
  if (fields_text.empty()) {
    return std::nullopt;
  }
  world.host.broadcast_from_root(tensors);
  SnapshotFields fields;
  together_retrying(
      world.host,
      [&] {
        fields = from_json(as_text(fields_text), where + "/" + kStateFile);
        check(fields);
        fill_tensors(tensors, where + "/" + kTensorsFile, state.tensors());
        state.parameters.refresh();
      },
      [&](const Agreement&) { release_cached_memory(world.place); });
  return fields;
}

}  // namespace lorascale::train
