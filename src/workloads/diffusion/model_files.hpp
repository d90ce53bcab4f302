// The files of a model anew, byte for byte but for the weights that changed: of a diffusers folder
// a folder, of one file of all parts such a file.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace lorascale::workloads::diffusion {

// What becomes of a tensor, fp32 on the CPU in the shape of the file; changed in place.
using ChangeOfTensor = std::function<void(at::Tensor& tensor)>;
// By the file or the folder of a part, and by the tensor's name there.
using ChangedFiles = std::map<std::filesystem::path, std::map<std::string, ChangeOfTensor>>;

// `dtype` absent: as stored. Returns what was written: `output`, or the file in it.
std::filesystem::path write_model_files(const std::filesystem::path& model,
                                        const ChangedFiles& changes,
                                        const std::filesystem::path& output,
                                        std::optional<at::ScalarType> dtype);

}  // namespace lorascale::workloads::diffusion
