#include "workloads/diffusion/model_files.hpp"

#include <ATen/ops/empty.h>

#include <string_view>
#include <vector>

#include "io/durable_file.hpp"
#include "io/safetensors_writer.hpp"
#include "models/diffusion/pipeline_config.hpp"
#include "models/weights_reader.hpp"
#include "nn/dtypes.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::workloads::diffusion {
namespace {

namespace fs = std::filesystem;

// All tensors of `files`, of which those that change are rounded once.
void write_changed(const fs::path& files, const ChangedTensors& changes, const fs::path& output,
                   std::optional<at::ScalarType> dtype) {
  const models::WeightsReader reader(files);
  std::vector<at::Tensor> tensors;
  std::vector<io::TensorToWrite> to_write;
  for (const auto& name : reader.files().keys()) {
    const auto& info = reader.files().at(name);
    const auto stored = nn::float_type_stored_as(io::dtype_name(info.dtype));
    const auto change = changes.find(name);
    auto type = info.dtype;
    if (stored && (change != changes.end() || dtype)) {
      at::Tensor tensor = reader.tensor(name);
      if (change != changes.end()) {
        tensor = tensor.to(at::kFloat);
        for (const auto& apply : change->second) {
          apply(tensor);
        }
      }
      const auto as = dtype.value_or(*stored);
      tensors.push_back(tensor.to(as).contiguous());
      type = *io::dtype_from_name(nn::float_type(as).safetensors);
    } else {
      tensors.push_back(at::empty({static_cast<std::int64_t>(info.bytes())}, at::kByte));
      reader.files().read(name, nn::writable_bytes(tensors.back()));
    }
    to_write.push_back({name, type, info.shape, nn::bytes_of(tensors.back())});
  }
  io::write_safetensors(output, to_write, reader.files().metadata());
}

bool holds_weights(const fs::path& file) {
  const auto name = file.filename().string();
  return file.extension() == ".safetensors" || file.extension() == ".bin" ||
         name.ends_with(".safetensors.index.json");
}

void write_folder(const fs::path& from, const ChangedFiles& changes, const fs::path& to,
                  std::optional<at::ScalarType> dtype) {
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    const auto relative = entry.path().lexically_relative(from);
    const bool replaced = holds_weights(entry.path()) && changes.contains(from / *relative.begin());
    if (entry.is_directory() || replaced) {
      continue;
    }
    io::create_folders((to / relative).parent_path());
    fs::copy_file(entry.path(), to / relative, fs::copy_options::overwrite_existing);
  }
  for (const auto& [part, of_part] : changes) {
    const auto folder = to / part.filename();
    io::create_folders(folder);
    const bool of_diffusers = part.filename() == "unet" || part.filename() == "vae";
    const auto* name = of_diffusers ? "diffusion_pytorch_model.safetensors" : "model.safetensors";
    write_changed(part, of_part, folder / name, dtype);
  }
}

}  // namespace

fs::path write_model_files(const fs::path& model, const ChangedFiles& changes,
                           const fs::path& output, std::optional<at::ScalarType> dtype) {
  if (models::diffusion::is_pipeline_folder(model)) {
    write_folder(model, changes, output, dtype);
    return output;
  }
  if (output.extension() == ".safetensors") {
    if (output.has_parent_path()) {
      io::create_folders(output.parent_path());
    }
    write_changed(model, changes.begin()->second, output, dtype);
    return output;
  }
  io::create_folders(output);
  write_changed(model, changes.begin()->second, output / model.filename(), dtype);
  return output / model.filename();
}

}  // namespace lorascale::workloads::diffusion
