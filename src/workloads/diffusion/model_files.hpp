// The files of a model anew, byte for byte but for the weights that changed: of a diffusers folder
// a folder, of one file of all parts such a file.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lorascale::workloads::diffusion {

// What becomes of a tensor, fp32 on the CPU in the shape of the file; changed in place.
using ChangeOfTensor = std::function<void(at::Tensor& tensor)>;
// By the tensor's name: several where q, k and v stand in one.
using ChangedTensors = std::map<std::string, std::vector<ChangeOfTensor>>;
// By the file, or the folder of a part.
using ChangedFiles = std::map<std::filesystem::path, ChangedTensors>;

// `dtype` absent: as stored. Returns what was written: `output`, or the file in it.
std::filesystem::path write_model_files(const std::filesystem::path& model,
                                        const ChangedFiles& changes,
                                        const std::filesystem::path& output,
                                        std::optional<at::ScalarType> dtype);

}  // namespace lorascale::workloads::diffusion
