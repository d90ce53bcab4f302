#include "workloads/diffusion/picture_preview.hpp"

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "io/png_writer.hpp"
#include "models/diffusion/picture_maker.hpp"
#include "workloads/diffusion/pipeline_of_config.hpp"

namespace lorascale::workloads::diffusion {

UsualSize usual_size_of(const data::CaptionedFile& pictures) {
  std::vector<std::int64_t> counts(pictures.buckets().size(), 0);
  for (std::int64_t i = 0; i < pictures.images(); ++i) {
    ++counts[static_cast<std::size_t>(pictures.bucket(i))];
  }
  const auto most = std::ranges::max_element(counts) - counts.begin();
  const auto& bucket = pictures.buckets()[static_cast<std::size_t>(most)];
  return {bucket.height, bucket.width};
}

PicturePreview::PicturePreview(const models::diffusion::DiffusionModel& model,
                               const config::RunConfig& config,
                               const std::vector<std::string>& prompts, const UsualSize& usual,
                               const std::string& where, std::vector<data::WordForm> new_word)
    : model_(model), config_(config), usual_(usual), new_word_(std::move(new_word)) {
  const auto factor = model.pipeline().config().vae.factor();
  std::vector<std::string> captions;
  for (const auto& text : prompts) {
    const auto& prompt = prompts_.emplace_back(parse_prompt(text, config, prompts_.size(), where));
    for (const auto& side : {prompt.width, prompt.height}) {
      if (side.value_or(factor) % factor != 0) {
        throw_bad_config(
            fmt::format("{}: a picture of {} pixels a side cannot be; multiples of {} can", where,
                        *side, factor));
      }
    }
    captions.push_back(prompt.caption);
    captions.push_back(prompt.negative.value_or(""));
  }
  captions.emplace_back();
  encoded_ = encode_captions(config, captions);
  const auto encoders = std::ssize(model.pipeline().texts());
  if (std::ssize(encoded_.tokens.pads) < encoders) {
    throw_bad_input(config.model.path + ": the tokenizer of its second text encoder is missing");
  }
}

at::Tensor PicturePreview::rows_of_caption(const std::vector<std::int32_t>& caption,
                                           const std::vector<data::WordForm>& new_word) const {
  auto rows = rows_of(config_, model_.pipeline().config());
  rows.new_word = new_word;
  std::vector<std::int32_t> ids;
  data::add_caption_rows(caption, encoded_.tokens, rows, ids);
  return at::from_blob(ids.data(), {1, rows.encoders, rows.text_rows, rows.positions}, at::kInt)
      .clone();
}

models::diffusion::PictureRequest PicturePreview::request_of(
    std::size_t number, const std::vector<data::WordForm>& new_word) const {
  const auto& prompt = prompts_[number];
  models::diffusion::PictureRequest request;
  request.prompt = rows_of_caption(encoded_.ids[2 * number], new_word);
  if (prompt.negative) {
    request.negative = rows_of_caption(encoded_.ids[2 * number + 1], new_word);
  }
  request.empty = rows_of_caption(encoded_.ids.back(), new_word);
  request.height = prompt.height.value_or(usual_.height);
  request.width = prompt.width.value_or(usual_.width);
  request.sampler = sampler_named(config_.sample.sampler);
  request.steps = prompt.steps;
  request.guidance = prompt.guidance;
  request.seed = prompt.seed;
  return request;
}

std::string PicturePreview::parameters_of(std::size_t number,
                                          const models::diffusion::PictureRequest& request) const {
  return parameters_text(prompts_[number], request.width, request.height, config_.sample.sampler,
                         config_.model.path);
}

std::string png_of(const at::Tensor& picture, const std::string& parameters) {
  const at::Tensor whole = picture.contiguous();
  const std::span pixels(whole.const_data_ptr<std::uint8_t>(),
                         static_cast<std::size_t>(whole.numel()));
  return io::encode_png_file(pixels, whole.size(0), whole.size(1), {{"parameters", parameters}});
}

std::vector<PicturePreview::Made> PicturePreview::pictures() const {
  std::vector<Made> made;
  for (std::size_t i = 0; i < prompts_.size(); ++i) {
    const auto request = request_of(i, new_word_);
    made.push_back({models::diffusion::make_picture(model_, request), parameters_of(i, request)});
  }
  return made;
}

std::vector<Preview::Item> PicturePreview::make() {
  std::vector<Item> items;
  for (const auto& [picture, parameters] : pictures()) {
    items.push_back({fmt::format("{:02}", items.size()),
                     parameters,
                     {png_of(picture, parameters), picture.size(0), picture.size(1)}});
  }
  return items;
}

}  // namespace lorascale::workloads::diffusion
