#include "adapters/formats/weights_file.hpp"

#include "io/durable_file.hpp"
#include "io/safetensors_types.hpp"
#include "io/safetensors_writer.hpp"
#include "nn/dtypes.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::adapters {

void write_weights(const std::filesystem::path& folder,
                   const std::vector<nn::ParameterSlot>& slots) {
  io::create_folders(folder);
  std::vector<at::Tensor> host;  // keeps device copies alive
  std::vector<io::TensorToWrite> tensors;
  for (const auto& slot : slots) {
    host.push_back(slot.value->cpu());
    std::int64_t first = 0;
    for (const auto& part : slot.parts) {
      const at::Tensor rows = host.back().narrow(0, first, part.shape[0]);
      first += part.shape[0];
      tensors.push_back({part.key,
                         *io::dtype_from_name(nn::float_type(rows.scalar_type()).safetensors),
                         part.shape, nn::bytes_of(rows)});
    }
  }
  io::write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
}

}  // namespace lorascale::adapters
