// The verb `merge` for Stable Diffusion: the files of the base anew, byte for byte but for the
// weights that the adapter changes.
#include "adapters/formats/merge.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <map>
#include <utility>

#include "adapters/formats/kohya.hpp"
#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors_writer.hpp"
#include "models/diffusion/pipeline.hpp"
#include "models/weights_reader.hpp"
#include "nn/dtypes.hpp"
#include "nn/tensor_bytes.hpp"
#include "workloads/diffusion/diffusion.hpp"

namespace lorascale::workloads::diffusion {
namespace {

namespace fs = std::filesystem;

struct Change {
  const adapters::PeftModule* module;
  std::int64_t first_row;
};
// By the name of a tensor in the files.
using Changes = std::multimap<std::string, Change>;

void apply(const Change& change, at::Tensor& tensor, const std::string& name) {
  const at::Tensor delta = change.module->weight_change();
  at::Tensor rows = tensor.narrow(0, change.first_row, delta.size(0));
  if (rows.numel() != delta.numel()) {
    throw_bad_input("the adapter's change of " + name + " does not fit this model's shape");
  }
  rows.copy_(rows.to(at::kFloat) + delta.view(rows.sizes()));
}

// All tensors of `files`, of which those that change are rounded once.
void write_changed(const fs::path& files, const Changes& changes, const fs::path& output,
                   std::optional<at::ScalarType> dtype) {
  const models::WeightsReader reader(files);
  std::vector<at::Tensor> tensors;
  std::vector<io::TensorToWrite> to_write;
  for (const auto& name : reader.files().keys()) {
    const auto& info = reader.files().at(name);
    const auto stored = nn::float_type_stored_as(io::dtype_name(info.dtype));
    const auto [begin, end] = changes.equal_range(name);
    at::Tensor tensor;
    auto type = info.dtype;
    if (stored && (begin != end || dtype)) {
      at::Tensor exact = reader.tensor(name);
      if (begin != end) {
        exact = exact.to(at::kFloat);
        for (auto change = begin; change != end; ++change) {
          apply(change->second, exact, name);
        }
      }
      const auto as = dtype.value_or(*stored);
      tensor = exact.to(as).contiguous();
      type = *io::dtype_from_name(nn::float_type(as).safetensors);
    } else {
      tensor = at::empty({static_cast<std::int64_t>(info.bytes())}, at::kByte);
      reader.files().read(name, nn::writable_bytes(tensor));
    }
    tensors.push_back(tensor);
    to_write.push_back({name, type, info.shape, nn::bytes_of(tensors.back())});
  }
  io::write_safetensors(output, to_write, reader.files().metadata());
}

// A folder of diffusers' with other weights in the parts that change.
void write_folder(const fs::path& from, const std::map<fs::path, Changes>& changes,
                  const fs::path& to, std::optional<at::ScalarType> dtype) {
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    const auto relative = entry.path().lexically_relative(from);
    const auto name = entry.path().filename().string();
    const bool weights = entry.path().extension() == ".safetensors" ||
                         name.ends_with(".safetensors.index.json") || name.ends_with(".bin");
    const auto part = from / *relative.begin();
    const bool rewritten = changes.contains(part);
    if (entry.is_directory() || (weights && rewritten)) {
      continue;
    }
    io::create_folders((to / relative).parent_path());
    fs::copy_file(entry.path(), to / relative);
  }
  for (const auto& [part, of_part] : changes) {
    const auto folder = to / part.filename();
    io::create_folders(folder);
    const auto* name = part.filename() == "unet" ? "diffusion_pytorch_model.safetensors"
                                                 : "model.safetensors";
    write_changed(part, of_part, folder / name, dtype);
  }
}

}  // namespace

std::string merge(const MergeRequest& request) {
  if (request.end_token_id) {
    throw Error(ExitCode::kUsage, "--end-token-id is for language models; leave it out");
  }
  const models::diffusion::PipelineSource source{request.model, {}};
  const auto dtype = nn::float_type_named(request.dtype);
  auto shapes = models::diffusion::read_pipeline_shapes(source, std::nullopt);
  const auto file = adapters::kohya_file(request.adapter);
  if (!file) {
    throw_bad_input(request.adapter.string() + " is no LoRA file (.safetensors), nor a folder with " +
                    adapters::kKohyaFile);
  }
  const auto adapter = adapters::read_kohya_adapter(*file, shapes->sites());
  std::vector<std::string> keys;
  for (const auto& [name, module] : adapter.modules) {
    keys.push_back(name + ".weight");
  }
  const auto stored = models::diffusion::stored_weights(source, keys);
  std::map<fs::path, Changes> changes;
  std::size_t i = 0;
  for (const auto& [name, module] : adapter.modules) {
    changes[stored[i].files].emplace(stored[i].name, Change{&module, stored[i].first_row});
    ++i;
  }
  auto output = request.output;
  if (models::diffusion::is_pipeline_folder(request.model)) {
    write_folder(request.model, changes, output, dtype);
  } else {
    io::create_folders(output);
    output /= request.model.filename();
    write_changed(request.model, changes.begin()->second, output, dtype);
  }
  return fmt::format("merged {} layers into {}", adapter.modules.size(), output.string());
}

}  // namespace lorascale::workloads::diffusion
