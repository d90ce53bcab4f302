// The parts of a Stable Diffusion model with their weights, read from a diffusers folder or from
// one file of all parts (LDM). Slots and sites are named by part: "unet.", "vae.", "text_encoder.",
// "text_encoder_2.", and behind it as diffusers and transformers name them.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/diffusion/clip_text.hpp"
#include "models/diffusion/pipeline_config.hpp"
#include "models/diffusion/unet.hpp"
#include "models/diffusion/vae.hpp"
#include "models/weight_place.hpp"

namespace lorascale::models::diffusion {

class Pipeline {
 public:
  // Weights are allocated, not filled. The autoencoder computes in fp32 where `dtype` is fp16,
  // whose range its activations leave.
  Pipeline(PipelineConfig config, at::ScalarType dtype, at::Device device);

  [[nodiscard]] const PipelineConfig& config() const { return config_; }
  [[nodiscard]] at::ScalarType dtype() const { return dtype_; }
  UNet& unet() { return unet_; }
  [[nodiscard]] const UNet& unet() const { return unet_; }
  Vae& vae() { return vae_; }
  [[nodiscard]] const Vae& vae() const { return vae_; }
  std::vector<ClipTextEncoder>& texts() { return texts_; }
  [[nodiscard]] const std::vector<ClipTextEncoder>& texts() const { return texts_; }

  // What adapters may attach to: linear layers and convolutions of the UNet but for its first and
  // last ones and the time's, linear layers of the text encoders.
  std::vector<nn::Site> sites();
  std::vector<nn::ParameterSlot> trained_slots();  // of UNet and text encoders
  std::vector<nn::ParameterSlot> vae_slots();
  std::vector<nn::ParameterSlot> slots();  // all

 private:
  PipelineConfig config_;
  at::ScalarType dtype_;
  UNet unet_;
  Vae vae_;
  std::vector<ClipTextEncoder> texts_;
};

// "text_encoder", "text_encoder_2"
std::string text_part_name(std::size_t number);

struct PipelineSource {
  std::filesystem::path path;
  std::optional<std::filesystem::path> vae;  // a folder or file of its own
};

// Reads everything. `dtype` empty: as the UNet is stored. Error(kBadInput) with file, tensor and
// remedy.
std::unique_ptr<Pipeline> load_pipeline(const PipelineSource& source,
                                        std::optional<at::ScalarType> dtype,
                                        const WeightPlace& place);
// The same from headers alone: every check but those of values, and a pipeline without memory.
std::unique_ptr<Pipeline> read_pipeline_shapes(const PipelineSource& source,
                                               std::optional<at::ScalarType> dtype);
// Tells models apart.
std::string pipeline_fingerprint(const PipelineSource& source);

// The same of what latents ("vae") or contexts ("text") follow from.
std::string part_fingerprint(const PipelineSource& source, const std::string& part);

// Where a weight of the slots lies in the files: rows of a tensor.
struct StoredWeight {
  std::filesystem::path files;  // a file, or the folder of a part
  std::string name;
  std::int64_t first_row = 0;
  bool turned = false;  // [in, out] in the file
};
// `keys`: of slots' parts. In their order.
std::vector<StoredWeight> stored_weights(const PipelineSource& source,
                                         const std::vector<std::string>& keys);

}  // namespace lorascale::models::diffusion
