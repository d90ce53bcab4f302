// Pictures that the model makes of prompts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "data/pictures/captioned_file.hpp"
#include "data/pictures/picture_dataset.hpp"
#include "models/diffusion/diffusion_model.hpp"
#include "models/diffusion/picture_maker.hpp"
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
  // Makes tokens of the prompts, which come from `where`, with the model's new word in them. The
  // model must outlive it.
  // Error(kBadConfig) where a prompt cannot be meant, Error(kBadInput) where it cannot be made into
  // tokens.
  PicturePreview(const models::diffusion::DiffusionModel& model, const config::RunConfig& config,
                 const std::vector<std::string>& prompts, const UsualSize& usual,
                 const std::string& where = "sample.prompts",
                 std::vector<data::WordForm> new_word = {});

  // One picture for each prompt, [height, width, 3] u8, with all that makes it again.
  struct Made {
    at::Tensor picture;
    std::string parameters;
  };
  [[nodiscard]] std::vector<Made> pictures() const;
  // The same as PNG files.
  std::vector<Item> make() override;
  // A grid of the first prompts (downwards) at sample.strengths of the run's adapter; and where
  // learns_from() was called and advice is wanted, numbers of over-fitting (fit_measures.hpp).
  std::vector<coordinator::Measure> make_last(const Show& show) override;
  // What the model learns from, and the model where losses can be asked of it. Both must outlive
  // this.
  void learns_from(const data::PictureDataset& data, models::Model& trained) {
    data_ = &data;
    trained_ = &trained;
  }
  // What captions of the data must have been tokenised by, too.
  [[nodiscard]] const data::CaptionTokens& tokens() const { return encoded_.tokens; }

 private:
  // Of those that make_last() shows at each strength.
  static constexpr std::size_t kMostPromptsAtStrengths = 4;
  // A prompt with the words that call what was learnt, and without them.
  struct Trigger {
    std::size_t prompt = 0;  // of which the settings are
    std::vector<std::string> words;
    std::string with, without;
  };

  [[nodiscard]] at::Tensor rows_of_caption(const std::vector<std::int32_t>& caption,
                                           const std::vector<data::WordForm>& new_word) const;
  [[nodiscard]] models::diffusion::PictureRequest request_of(
      std::size_t prompt, const std::vector<data::WordForm>& new_word) const;
  [[nodiscard]] std::string parameters_of(std::size_t prompt,
                                          const models::diffusion::PictureRequest& request) const;
  [[nodiscard]] std::optional<Item> strengths() const;
  [[nodiscard]] std::optional<Trigger> trigger() const;
  [[nodiscard]] std::vector<coordinator::Measure> measures() const;

  const models::diffusion::DiffusionModel& model_;
  config::RunConfig config_;
  UsualSize usual_;
  std::vector<data::WordForm> new_word_;
  std::vector<Prompt> prompts_;
  EncodedCaptions
      encoded_;  // of each prompt what is wanted, what is not, and the empty one at last
  const data::PictureDataset* data_ = nullptr;
  models::Model* trained_ = nullptr;
};

}  // namespace lorascale::workloads::diffusion
