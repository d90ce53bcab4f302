// What a run shows of its pictures when it ends: the adapter at several strengths, and numbers
// that tell of over-fitting. Both begin from the base's files again, so that nothing of what was
// trained is touched.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/heartbeat.hpp"
#include "coordinator/advice/preview_findings.hpp"
#include "nn/dtypes.hpp"
#include "workloads/diffusion/adapted_pipeline.hpp"
#include "workloads/diffusion/fit_measures.hpp"
#include "workloads/diffusion/picture_preview.hpp"
#include "workloads/diffusion/pipeline_of_config.hpp"
#include "workloads/diffusion/shared_words.hpp"

namespace lorascale::workloads::diffusion {
namespace {

using models::diffusion::DiffusionModel;

constexpr double kLoadSeconds = 1800;  // a model of some GB from a slow disk

std::filesystem::path adapter_of(const config::RunConfig& config) {
  return std::filesystem::path(config.run.output_dir) / "adapter";
}

std::unique_ptr<models::diffusion::Pipeline> base_of(const config::RunConfig& config,
                                                     at::Device device) {
  const KeepBeating beating("reading the base model again", kLoadSeconds);
  return models::diffusion::load_pipeline(source_of(config.model),
                                          nn::float_type_named(config.model.dtype), device);
}

// One below the other, white where one is narrower. [height, width, 3]
at::Tensor stacked(std::vector<at::Tensor> rows) {
  std::int64_t width = 0;
  for (const auto& row : rows) {
    width = std::max(width, row.size(1));
  }
  for (auto& row : rows) {
    row = at::cat({row, at::full({row.size(0), width - row.size(1), 3}, 255, row.options())}, 1);
  }
  return at::cat(rows);
}

std::vector<std::string> captions_of(const data::CaptionedFile& file) {
  std::vector<std::string> captions;
  for (std::int64_t i = 0; i < file.images(); ++i) {
    if (!file.regularisation(i)) {
      captions.emplace_back(file.caption(i));
    }
  }
  return captions;
}

}  // namespace

std::optional<Preview::Item> PicturePreview::strengths() const {
  const auto& strengths = config_.sample.strengths;
  if (strengths.empty()) {
    return std::nullopt;
  }
  const auto prompts = std::min(prompts_.size(), kMostPromptsAtStrengths);
  std::vector<std::vector<at::Tensor>> rows(prompts);  // of each prompt, a picture a strength
  std::vector<std::string> parameters(prompts);
  for (const auto strength : strengths) {
    auto pipeline = base_of(config_, model_.device());
    const auto adapted = add_adapter(*pipeline, config_, adapter_of(config_), strength);
    if (!adapted) {
      return std::nullopt;
    }
    const DiffusionModel model(std::move(pipeline), settings_of(config_));
    for (std::size_t i = 0; i < prompts; ++i) {
      const auto request = request_of(i, adapted->new_word);
      rows[i].push_back(models::diffusion::make_picture(model, request));
      parameters[i] = parameters_of(i, request);
    }
  }
  std::string text;
  std::vector<at::Tensor> beside;
  for (std::size_t i = 0; i < prompts; ++i) {
    beside.push_back(at::cat(rows[i], 1));
    text +=
        fmt::format("{}{}, LoRA: {} at {}", text.empty() ? "" : "\n", parameters[i],
                    adapter_of(config_).lexically_normal().string(), fmt::join(strengths, ", "));
  }
  const at::Tensor picture = stacked(std::move(beside));
  return Item{"strengths", text, {png_of(picture, text), picture.size(0), picture.size(1)}};
}

// The words that call what was learnt, with a prompt that has them and the same without.
std::optional<PicturePreview::Trigger> PicturePreview::trigger() const {
  Trigger trigger;
  trigger.words = config_.adapter.token.word ? std::vector{*config_.adapter.token.word}
                                             : shared_words(captions_of(data_->file()));
  if (trigger.words.empty()) {
    return std::nullopt;
  }
  // Best is a prompt as the user has it; else one that the words are put before.
  for (const bool as_it_is : {true, false}) {
    for (std::size_t i = 0; i < prompts_.size(); ++i) {
      const auto& caption = prompts_[i].caption;
      trigger.prompt = i;
      trigger.without = without_words(caption, trigger.words);
      trigger.with = as_it_is
                         ? caption
                         : fmt::format("{}, {}", fmt::join(trigger.words, " "), trigger.without);
      if (!trigger.without.empty() && (!as_it_is || has_words(caption, trigger.words))) {
        return trigger;
      }
    }
  }
  return std::nullopt;
}

std::vector<coordinator::Measure> PicturePreview::measures() const {
  DiffusionModel base(base_of(config_, model_.device()), settings_of(config_));
  const auto compared = [&](std::size_t prompt, const std::vector<std::int32_t>* caption) {
    auto of_base = request_of(prompt, {}), of_now = request_of(prompt, new_word_);
    if (caption != nullptr) {
      of_base.prompt = rows_of_caption(*caption, {});
      of_now.prompt = rows_of_caption(*caption, new_word_);
    }
    return Compared{latents_at_seeds(base, of_base), latents_at_seeds(model_, of_now)};
  };
  std::vector<coordinator::Measure> measures;
  const auto add = [&](const char* name, const std::optional<double>& value,
                       const std::string& of) {
    if (value) {
      measures.push_back({name, *value, of});
    }
  };
  if (const auto found = trigger()) {
    const auto ids = encode_captions(config_, {found->with, found->without}).ids;
    const auto with = compared(found->prompt, &ids[0]);
    const auto without = compared(found->prompt, &ids[1]);
    add(coordinator::kSeedsDistance, distance_ratio(with), found->with);
    add(coordinator::kChangeWithoutWords, change_ratio(without, with),
        fmt::format("{}", fmt::join(found->words, " ")));
  } else {
    add(coordinator::kSeedsDistance, distance_ratio(compared(0, nullptr)),
        prompts_.front().caption);
  }
  const auto before = prior_loss(base, *data_, config_.run.seed);
  const auto after = before ? prior_loss(*trained_, *data_, config_.run.seed) : std::nullopt;
  if (after) {
    add(coordinator::kPriorLoss, *after / *before, "pictures for regularisation");
  }
  return measures;
}

std::vector<coordinator::Measure> PicturePreview::make_last(const Show& show) {
  if (const auto item = strengths()) {
    show(*item);
  }
  return config_.advice && trained_ != nullptr ? measures() : std::vector<coordinator::Measure>();
}

}  // namespace lorascale::workloads::diffusion
