// Stable Diffusion as a Model: pictures to latents, noise of a random time on them, and the mean
// squared error of what the UNet says of that noise (Ho et al. 2020). UNet and text encoders train,
// or adapters on them; the autoencoder is frozen.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/pictures/picture_leaf.hpp"
#include "models/diffusion/kept_tensors.hpp"
#include "models/diffusion/noise_schedule.hpp"
#include "models/diffusion/pipeline_model.hpp"
#include "models/diffusion/text_contexts.hpp"

namespace lorascale::models::diffusion {

struct DiffusionSettings {
  LossWeighting weighting;
  double noise_offset = 0;           // standard deviation of the noise's own mean in each channel
  double noise_offset_adaptive = 0;  // more of it where the latents' mean is not 0
  double input_perturbation = 0;     // more noise on what the model sees, not on what it is to tell
  std::int64_t clip_skip = 0;        // 0: as the model has it
  bool zero_terminal_snr = false;
  std::optional<Prediction> prediction;  // absent: as the model has it
};

class DiffusionModel : public PipelineModel {
 public:
  // Error(kBadConfig) where settings contradict each other or the model.
  DiffusionModel(std::unique_ptr<Pipeline> pipeline, const DiffusionSettings& settings);

  [[nodiscard]] const NoiseSchedule& schedule() const { return schedule_; }
  [[nodiscard]] const TextContexts& contexts() const { return contexts_; }

  [[nodiscard]] at::ScalarType dtype() const override { return pipeline().dtype(); }
  std::vector<nn::Site> sites() override { return pipeline().sites(); }
  [[nodiscard]] std::vector<std::string> parts_without_site() const override;
  std::vector<nn::ParameterSlot> parameter_slots() override { return pipeline().trained_slots(); }
  std::vector<nn::ParameterSlot> buffers() override { return pipeline().vae_slots(); }

  // Both take a data::PictureLeaf. The loss of a sample is the mean over its latents. evaluate()
  // asks at a time in each quarter of the schedule, always the same ones.
  LeafResult accumulate(const data::Leaf& leaf) override;
  LeafResult evaluate(const data::Leaf& leaf) override;
  // The loss, without weights, by quarters of the schedule.
  [[nodiscard]] std::vector<std::string> measure_names() const override;
  [[nodiscard]] double forward_operations(const data::Leaf& leaf) const override;
  [[nodiscard]] ActivationBytes activation_bytes(const data::Leaf& leaf) const override;

  // Mean and log-variance of pictures' latents, [samples, 2 * channels, height, width] fp32.
  [[nodiscard]] at::Tensor moments(const data::PictureLeaf& leaf,
                                   const data::PictureGroup& group) const;
  // Latents' and captions' results of frozen parts, which may be kept on disk.
  [[nodiscard]] KeptTensors& kept_moments() const { return kept_moments_; }
  [[nodiscard]] KeptTensors& kept_contexts() const { return contexts_.kept_tensors(); }
  // Has the leaf's latents there; how many were not.
  std::int64_t fill_moments(const data::PictureLeaf& leaf) const;
  // The same of a caption, by the ids of its rows; 0 or 1.
  std::int64_t fill_context(const std::vector<std::int32_t>& ids,
                            const std::vector<std::int64_t>& shape) const;
  // What is added to the time (SDXL): the pooled caption and six sizes of each sample.
  [[nodiscard]] at::Tensor added(const at::Tensor& pooled, const at::Tensor& sizes) const;

 private:
  // Of one sample of a group, by its place.
  [[nodiscard]] at::Tensor encoded(const data::PictureGroup& group, std::int64_t i) const;
  struct Batch;  // of a group: what the UNet sees and is to tell
  struct Sums;

  [[nodiscard]] Batch batch_of(const data::PictureLeaf& leaf, const data::PictureGroup& group,
                               std::int64_t part, std::int64_t parts) const;
  // Adds the losses to `sums`; returns the gradient of their weighted sum by the prediction.
  at::Tensor loss(const Batch& batch, const at::Tensor& prediction, Sums& sums) const;
  void run_group(const data::PictureLeaf& leaf, const data::PictureGroup& group, bool train,
                 std::int64_t part, std::int64_t parts, Sums& sums);
  LeafResult result_of(const data::PictureLeaf& leaf, const Sums& sums, std::int64_t parts) const;

  DiffusionSettings settings_;
  NoiseSchedule schedule_;
  TextContexts contexts_;
  mutable KeptTensors kept_moments_{std::int64_t{512} << 20};  // by view
};

}  // namespace lorascale::models::diffusion
