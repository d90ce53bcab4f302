// The autoencoder of Stable Diffusion as a Model that trains (Kingma & Welling 2014; Rombach et al.
// 2022, without a critic): pictures become latents, a draw of them becomes a picture again, and
// what differs is the loss. UNet and text encoders stay as they are.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/pictures/picture_leaf.hpp"
#include "models/diffusion/pipeline_model.hpp"

namespace lorascale::models::diffusion {

// The loss of a picture, with d the reconstruction less the picture, in [-2, 2]:
//   mean |d| + mean |d's differences between neighbours, across and down| + mean |d at half size|
//   + kl * mean over latents of (mu^2 + var - 1 - log var) / 2
// Edges count by the second term, colours by the third; a mask multiplies d.
class AutoencoderModel : public PipelineModel {
 public:
  AutoencoderModel(std::unique_ptr<Pipeline> pipeline, double kl)
      : PipelineModel(std::move(pipeline)), kl_(kl) {}

  [[nodiscard]] at::ScalarType dtype() const override { return pipeline().vae().dtype(); }
  std::vector<nn::Site> sites() override { return {}; }
  std::vector<nn::ParameterSlot> parameter_slots() override { return pipeline().vae_slots(); }
  std::vector<nn::ParameterSlot> buffers() override { return pipeline().trained_slots(); }

  // Both take a data::PictureLeaf. evaluate() decodes the latents' mean.
  LeafResult accumulate(const data::Leaf& leaf) override { return run(leaf, /*train=*/true); }
  LeafResult evaluate(const data::Leaf& leaf) override { return run(leaf, /*train=*/false); }
  // Means over pictures: peak signal-to-noise ratio in dB, and the term that kl multiplies.
  [[nodiscard]] std::vector<std::string> measure_names() const override { return {"psnr", "kl"}; }
  [[nodiscard]] double forward_operations(const data::Leaf& leaf) const override;
  [[nodiscard]] ActivationBytes activation_bytes(const data::Leaf& leaf) const override;

 private:
  LeafResult run(const data::Leaf& leaf, bool train);
  void run_group(const data::PictureLeaf& leaf, const data::PictureGroup& group, bool train,
                 LeafResult& result) const;

  double kl_;
};

}  // namespace lorascale::models::diffusion
