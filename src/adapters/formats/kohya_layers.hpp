// The layers of a LoRA file of sd-scripts' form as they stand there, whatever model they are of:
// <name>.lora_down.weight (A), <name>.lora_up.weight (B), <name>.alpha and with DoRA
// <name>.dora_scale.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "adapters/formats/factor.hpp"
#include "io/safetensors.hpp"

namespace lorascale::adapters {

inline constexpr std::string_view kKohyaDown = ".lora_down.weight";
inline constexpr std::string_view kKohyaUp = ".lora_up.weight";
inline constexpr std::string_view kKohyaAlpha = ".alpha";
inline constexpr std::string_view kKohyaDora = ".dora_scale";

struct KohyaLayer {
  at::Tensor a;  // fp32 CPU, [rank, in] or of a convolution [rank, in, height, width]
  at::Tensor b;  // fp32 CPU, [out, rank] or [out, rank, 1, 1]
  double alpha = 0;
  at::Tensor magnitude{};  // fp32 CPU [out] of DoRA; else undefined
};

// Names of the layers. Error(kBadInput) where the file holds anything else.
std::set<std::string> kohya_layer_names(const io::SafetensorsFile& file);

// Error(kBadInput) where the layer's tensors do not fit together. Magnitudes are read where asked
// for: files have them for inputs, too, which cannot be applied.
KohyaLayer read_kohya_layer(const io::SafetensorsFile& file, const std::string& name,
                            bool with_magnitude = true);

// Writes the file (atomically) with the hashes (sshs_*) by which interfaces know files; none of
// these where no key of the metadata is of sd-scripts' (ss_*).
void write_kohya_file(const std::filesystem::path& file, const FactorsToWrite& tensors,
                      io::SafetensorsMetadata metadata);

// The same with layers, factors in `type`.
void write_kohya_layers(const std::filesystem::path& file,
                        const std::map<std::string, KohyaLayer>& layers, at::ScalarType type,
                        io::SafetensorsMetadata metadata);

// A number as Python writes it: "8.0".
std::string kohya_number(double value);

}  // namespace lorascale::adapters
