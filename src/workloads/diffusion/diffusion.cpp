#include "workloads/diffusion/diffusion.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "base/error.hpp"
#include "base/units.hpp"
#include "data/leaf_stream.hpp"
#include "data/pictures/picture_dataset.hpp"
#include "models/diffusion/diffusion_model.hpp"
#include "nn/dtypes.hpp"
#include "workloads/diffusion/caches.hpp"
#include "workloads/diffusion/dataset_facts.hpp"
#include "workloads/diffusion/model_files.hpp"
#include "workloads/diffusion/model_tags.hpp"
#include "workloads/diffusion/model_tokenizer.hpp"
#include "workloads/diffusion/new_word.hpp"
#include "workloads/diffusion/picture_preview.hpp"
#include "workloads/diffusion/pipeline_of_config.hpp"
#include "workloads/diffusion/usual_settings.hpp"

namespace lorascale::workloads::diffusion {
namespace {

using data::PictureDataset;
using models::diffusion::DiffusionModel;
using models::diffusion::Prediction;

// Operations of a leaf's forward beyond which products are as fast as they get, and the most
// pictures of it.
constexpr double kEnoughOnCpu = 1e10;
constexpr double kEnoughOnDevice = 1e13;
constexpr double kMostPictures = 64;

// Of the first level: smaller UNets are for trying things out, and nobody has experience of them.
constexpr std::int64_t kChannelsOfRealModels = 256;

class DiffusionWorkload : public Workload {
 public:
  DiffusionWorkload(config::RunConfig& config, const prepare::DataFiles& files,
                    const models::WeightPlace& place);

  models::Model& model() override { return *model_; }
  [[nodiscard]] const data::Dataset& train() const override { return *train_; }
  [[nodiscard]] const data::Dataset* validation() const override { return validation_.get(); }
  Preview* preview() override { return preview_.get(); }
  [[nodiscard]] const Words& words() const override { return words_; }
  [[nodiscard]] std::string model_fingerprint() const override { return fingerprint_; }
  [[nodiscard]] std::int64_t enough_samples() const override;
  void describe(coordinator::Recipe& recipe) const override {
    // Thousands of numbers count in a picture: parameters for each target would say nothing of it.
    recipe.targets_per_epoch = 0;
  }
  [[nodiscard]] std::vector<std::string> warnings() const override;
  [[nodiscard]] std::vector<std::string> plan_lines() const override;
  CacheReport fill_caches(const CacheShare& share) override;
  [[nodiscard]] adapters::ExportContext export_context() const override;

 private:
  config::RunConfig config_;
  Words words_;
  std::string fingerprint_;
  std::unique_ptr<models::diffusion::PipelineModel> model_;
  const DiffusionModel* denoiser_;  // *model_ as such; null where another part trains
  std::unique_ptr<PictureDataset> train_, validation_;  // the latter may be null
  std::unique_ptr<PicturePreview> preview_;             // may be null
};

DiffusionWorkload::DiffusionWorkload(config::RunConfig& config, const prepare::DataFiles& files,
                                     const models::WeightPlace& place)
    : words_{"image", "images/s",
             "model.recompute: true, smaller pictures (scripts/prepare_images.py --resolution), a "
             "lower adapter.rank or a smaller model.dtype",
             "no picture of it counts as a target"},
      fingerprint_(models::diffusion::pipeline_fingerprint(source_of(config.model))) {
  config_ = config;
  model_ = model_of(
      config, models::diffusion::load_pipeline(source_of(config.model),
                                               nn::float_type_named(config.model.dtype), place));
  denoiser_ = dynamic_cast<const DiffusionModel*>(model_.get());
  const auto& pipeline = model_->pipeline().config();
  const auto word = denoiser_ != nullptr ? trained_word(config, pipeline) : NewWord();
  const auto settings = [&](bool training) {
    auto pictures = pictures_of(config, pipeline, training);
    pictures.rows.new_word = word.forms;
    return pictures;
  };
  train_ = std::make_unique<PictureDataset>(files.train, settings(true));
  if (files.validation) {
    validation_ = std::make_unique<PictureDataset>(*files.validation, settings(false));
    data::require_one_tokenizer(train_->file(), validation_->file());
  }
  require_tokenizer_of_model(train_->file(), config.model.path);
  require_word(word, *train_, config);
  for (const auto& text : pipeline.texts) {
    if (train_->file().tokens().vocabulary > text.clip.vocabulary) {
      throw_bad_input(fmt::format(
          "{} was made with a tokenizer of {} tokens, and the model's text encoder has {}; make it "
          "again with {} --model {}",
          train_->path(), train_->file().tokens().vocabulary, text.clip.vocabulary,
          data::kCaptionedFileMaker, config.model.path));
    }
  }
  if (denoiser_ != nullptr && config.sample.every.value > 0 && !config.sample.prompts.empty()) {
    preview_ = std::make_unique<PicturePreview>(*denoiser_, config, config.sample.prompts,
                                                usual_size_of(train_->file()), "sample.prompts",
                                                word.forms);
    preview_->learns_from(*train_, *model_);
    if (preview_->tokens().tokenizer != train_->file().tokens().tokenizer) {
      throw_bad_input(train_->path() +
                      " was made with another tokenizer than that of sample.prompts; prepare it "
                      "with the model's own");
    }
  }
}

CacheReport DiffusionWorkload::fill_caches(const CacheShare& share) {
  if (denoiser_ == nullptr) {
    return {};
  }
  open_caches(*denoiser_, config_);  // not before: now it is known what trains
  std::vector<const PictureDataset*> data = {train_.get()};
  if (validation_) {
    data.push_back(validation_.get());
  }
  return diffusion::fill_caches(*denoiser_, data, share);
}

std::int64_t DiffusionWorkload::enough_samples() const {
  const auto one = data::heaviest_leaf(*train_, {}, 1);
  const auto enough = model_->device().is_cpu() ? kEnoughOnCpu : kEnoughOnDevice;
  return static_cast<std::int64_t>(
      std::clamp(std::ceil(enough / model_->forward_operations(*one)), 1.0, kMostPictures));
}

TrainingFacts training_facts_of(const config::RunConfig& config, const PictureDataset& data,
                                const models::diffusion::PipelineConfig& pipeline) {
  TrainingFacts facts;
  facts.pictures = data.file().images();
  if (config.budget.unit != Unit::kMinutes) {
    facts.samples =
        static_cast<double>(to_samples(config.budget, {data.rows(), config.batch.global, 0, 0}));
  }
  const auto size = usual_size_of(data.file());
  facts.side = std::lround(std::sqrt(static_cast<double>(size.height * size.width)));
  facts.usual_side = pipeline.unet.usual_side * pipeline.vae.factor();
  facts.adapter = !config.adapter.trains_base();
  // Rates of embeddings are others, and they have no rank.
  facts.adam = config.optimizer.has_moments() &&
               (config.adapter.type == "lora" || config.adapter.trains_base());
  facts.rate = config.optimizer.lr;
  facts.rank = config.adapter.type == "lora" ? config.adapter.rank : 0;
  return facts;
}

std::vector<std::string> DiffusionWorkload::warnings() const {
  std::vector<std::string> warnings;
  if (const auto cut = train_->cut_captions(); cut > 0) {
    warnings.push_back(
        fmt::format("{} of {} captions have more than {} tokens, and their ends are cut off; set "
                    "data.caption.max_tokens to 150 or 225",
                    cut, train_->file().images(), config_.data.caption.max_tokens));
  }
  if (config_.adapter.dora) {
    warnings.emplace_back(
        "adapter.dora: programs do not agree on what a DoRA in a file means (diffusers leaves its "
        "magnitudes out); hand the result on by lorascale merge");
  }
  const auto& pipeline = model_->pipeline().config();
  if (denoiser_ != nullptr && !pipeline.prediction_unknown &&
      denoiser_->schedule().settings().prediction != pipeline.noise.prediction) {
    warnings.push_back(
        fmt::format("model.prediction is {}, and the files of {} say otherwise; "
                    "leave it out if they are right",
                    *config_.model.prediction, config_.model.path));
  }
  if (denoiser_ != nullptr && pipeline.unet.levels.front().channels >= kChannelsOfRealModels) {
    std::ranges::move(unusual_settings(training_facts_of(config_, *train_, pipeline)),
                      std::back_inserter(warnings));
  }
  return warnings;
}

std::vector<std::string> DiffusionWorkload::plan_lines() const {
  std::vector<std::int64_t> pictures(train_->file().buckets().size(), 0);
  for (std::int64_t i = 0; i < train_->file().images(); ++i) {
    ++pictures[static_cast<std::size_t>(train_->file().bucket(i))];
  }
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    const auto& bucket = train_->file().buckets()[i];
    lines.push_back(fmt::format("bucket    {} x {} (height x width): {}", bucket.height,
                                bucket.width, counted(pictures[i], "picture")));
  }
  return lines;
}

// The model's files with the weights as they are now, in the type that they were trained in.
void write_trained(models::diffusion::PipelineModel& model,
                   const models::diffusion::PipelineSource& source,
                   const std::filesystem::path& folder) {
  std::vector<std::string> keys;
  std::vector<at::Tensor> values;
  for (const auto& slot : model.parameter_slots()) {
    std::int64_t first = 0;
    for (const auto& [key, shape] : slot.parts) {
      keys.push_back(key);
      values.push_back(slot.value->narrow(0, first, shape[0]));
      first += shape[0];
    }
  }
  const auto stored = models::diffusion::stored_weights(source, keys);
  ChangedFiles changes;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const at::Tensor now = stored[i].turned ? values[i].t() : values[i];
    changes[stored[i].files][stored[i].name].push_back(
        [now, first = stored[i].first_row](at::Tensor& tensor) {
          at::Tensor rows = tensor.narrow(0, first, now.size(0));
          rows.copy_(now.reshape(rows.sizes()));
        });
  }
  write_model_files(source.path, changes, folder, model.dtype());
}

adapters::ExportContext DiffusionWorkload::export_context() const {
  const auto& pipeline = model_->pipeline().config();
  adapters::ExportContext context{config_.model.path, "", {}, {}};
  context.write_model = [model = model_.get(),
                         source = source_of(config_.model)](const std::filesystem::path& folder) {
    write_trained(*model, source, folder);
  };
  if (denoiser_ == nullptr) {
    return context;
  }
  const bool velocity = denoiser_->schedule().settings().prediction == Prediction::kVelocity;
  context.metadata = {
      {"ss_seed", std::to_string(config_.run.seed)},
      {"ss_learning_rate", fmt::format("{}", config_.optimizer.lr)},
      {"ss_total_batch_size", std::to_string(config_.batch.global)},
      {"ss_clip_skip",
       config_.model.clip_skip > 0 ? std::to_string(config_.model.clip_skip) : "None"},
  };
  context.metadata.merge(tags_of_model(pipeline, velocity, config_.model.path));
  context.metadata.merge(dataset_facts(*train_));
  return context;
}

BaseModel read_base(const config::ModelSection& model) {
  const auto source = source_of(model);
  config::RunConfig config;
  config.model = model;
  config.model.prediction = "v";  // of shapes alone nothing is predicted; no schedule contradicts v
  return {model_of(config, models::diffusion::read_pipeline_shapes(
                               source, nn::float_type_named(model.dtype))),
          models::diffusion::pipeline_fingerprint(source)};
}

}  // namespace

const WorkloadKind kDiffusion = {
    "diffusion",
    data::kCaptionedFormat,
    data::kCaptionedFileMaker,
    [](const config::ModelSection& model) {
      return !model.architecture && (models::diffusion::is_pipeline(model.path) ||
                                     !models::diffusion::mistaken_for_pipeline(model.path).empty());
    },
    [](config::RunConfig& config, const prepare::DataFiles& files,
       const models::WeightPlace& place) -> std::unique_ptr<Workload> {
      return std::make_unique<DiffusionWorkload>(config, files, place);
    },
    check_headers,
    describe_data,
    read_base,
    generate,
    merge,
    take_defaults,
    token_tables,
    export_adapter,
};

}  // namespace lorascale::workloads::diffusion
