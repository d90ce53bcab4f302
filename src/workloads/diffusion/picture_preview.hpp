// Pictures that the model makes of prompts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "data/pictures/captioned_file.hpp"
#include "models/diffusion/diffusion_model.hpp"
#include "workloads/diffusion/caption_encoder.hpp"
#include "workloads/diffusion/prompts.hpp"
#include "workloads/workload.hpp"

namespace lorascale::workloads::diffusion {

// Width and height where neither prompt nor configuration says so.
struct UsualSize {
  std::int64_t height = 512, width = 512;
};

// That of the bucket with most pictures.
UsualSize usual_size_of(const data::CaptionedFile& pictures);

// A PNG file of [height, width, 3] u8.
std::string png_of(const at::Tensor& picture, const std::string& parameters);

class PicturePreview : public Preview {
 public:
  // Makes tokens of the prompts, which come from `where`. The model must outlive it.
  // Error(kBadConfig) where a prompt cannot be meant, Error(kBadInput) where it cannot be made into
  // tokens.
  PicturePreview(const models::diffusion::DiffusionModel& model, const config::RunConfig& config,
                 const std::vector<std::string>& prompts, const UsualSize& usual,
                 const std::string& where = "sample.prompts");

  // One picture for each prompt, [height, width, 3] u8, with all that makes it again.
  struct Made {
    at::Tensor picture;
    std::string parameters;
  };
  [[nodiscard]] std::vector<Made> pictures() const;
  // The same as PNG files.
  std::vector<Item> make() override;
  // What captions of the data must have been tokenised by, too.
  [[nodiscard]] const data::CaptionTokens& tokens() const { return encoded_.tokens; }

 private:
  [[nodiscard]] at::Tensor rows_of_caption(std::size_t caption) const;

  const models::diffusion::DiffusionModel& model_;
  config::RunConfig config_;
  UsualSize usual_;
  std::vector<Prompt> prompts_;
  EncodedCaptions
      encoded_;  // of each prompt what is wanted, what is not, and the empty one at last
};

}  // namespace lorascale::workloads::diffusion
