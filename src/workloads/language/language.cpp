#include "workloads/language/language.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "adapters/formats/peft.hpp"
#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/units.hpp"
#include "data/tokens/token_dataset.hpp"
#include "io/file_descriptor.hpp"
#include "io/model_reader.hpp"
#include "models/decoder/decoder.hpp"
#include "models/decoder/export.hpp"
#include "nn/dtypes.hpp"
#include "workloads/language/end_tokens.hpp"
#include "workloads/language/text_preview.hpp"

namespace lorascale::workloads::language {
namespace {

using data::TokenDataset;
using models::decoder::Decoder;

constexpr std::uint64_t kMaxTokenizerBytes = std::uint64_t{256} << 20;

// Beyond so many tokens, products are as fast as they get.
constexpr std::int64_t kEnoughTokensOnCpu = 4096;
constexpr std::int64_t kEnoughTokensOnDevice = 32768;
constexpr std::int64_t kLeastOfEnough = 8;  // samples

class LanguageWorkload : public Workload {
 public:
  LanguageWorkload(config::RunConfig& config, const prepare::DataFiles& files,
                   const models::WeightPlace& place);

  models::Model& model() override { return *model_; }
  [[nodiscard]] const data::Dataset& train() const override { return *train_; }
  [[nodiscard]] const data::Dataset* validation() const override { return validation_.get(); }
  Preview* preview() override { return preview_.get(); }
  [[nodiscard]] const Words& words() const override { return words_; }
  [[nodiscard]] std::string model_fingerprint() const override { return model_fingerprint_; }
  [[nodiscard]] std::int64_t enough_samples() const override;
  void describe(coordinator::Recipe& recipe) const override;
  [[nodiscard]] std::vector<std::string> warnings() const override;
  [[nodiscard]] std::vector<std::string> plan_lines() const override;
  [[nodiscard]] adapters::ExportContext export_context() const override;

 private:
  [[nodiscard]] std::vector<const TokenDataset*> datasets() const;
  [[nodiscard]] std::optional<std::string> warning_of_context() const;
  void require_one_tokenizer() const;
  void require_prompts_that_fit() const;

  config::RunConfig config_;
  Words words_;
  std::string model_fingerprint_;
  std::unique_ptr<Decoder> model_;
  std::unique_ptr<TokenDataset> train_, validation_;  // the latter may be null
  std::unique_ptr<TextPreview> preview_;
};

// None where nothing is sampled.
std::vector<std::string> sampled_prompts(const config::RunConfig& config) {
  return config.sample.every.value > 0 ? config.sample.prompts : std::vector<std::string>();
}

LanguageWorkload::LanguageWorkload(config::RunConfig& config, const prepare::DataFiles& files,
                                   const models::WeightPlace& place)
    : words_{"token", "tok/s",
             fmt::format("model.recompute: true, a shorter data.sequence_length (now {}), a lower "
                         "adapter.rank or a smaller model.dtype",
                         config.data.sequence_length),
             "no token of it counts as a target; check its loss_mask"},
      model_fingerprint_(io::ModelReader(config.model.path).fingerprint()),
      model_(models::decoder::load_decoder(config.model.path,
                                           nn::float_type_named(config.model.dtype), place)) {
  model_->set_recompute(config.model.recompute);
  model_->set_label_smoothing(config.loss.label_smoothing);
  auto& data = config.data;
  data::TokenRowSettings settings{data.sequence_length, data.packing, model_->vocabulary(),
                                  config.batch.global};
  train_ = std::make_unique<TokenDataset>(files.train, settings);
  settings.packing = data.packing = train_->packed();
  if (files.validation) {
    validation_ = std::make_unique<TokenDataset>(*files.validation, settings);
  }
  config_ = config;
  for (const auto* dataset : datasets()) {
    dataset->require_targets();
  }
  require_one_tokenizer();
  models::decoder::require_positions(
      model_->config(), data.sequence_length,
      "data.sequence_length " + std::to_string(data.sequence_length));
  require_prompts_that_fit();
  if (!sampled_prompts(config_).empty()) {
    preview_ = std::make_unique<TextPreview>(*model_, *train_, config_);
  }
}

std::vector<const TokenDataset*> LanguageWorkload::datasets() const {
  std::vector<const TokenDataset*> datasets = {train_.get()};
  if (validation_) {
    datasets.push_back(validation_.get());
  }
  return datasets;
}

// Ids mean something to one tokenizer only. A tokenizer.json may have been written anew, byte for
// byte another and the same in effect: that of the model is worth a warning, not a refusal.
void LanguageWorkload::require_one_tokenizer() const {
  const auto& ours = train_->tokenizer();
  if (validation_ && !ours.empty() && !validation_->tokenizer().empty() &&
      validation_->tokenizer() != ours) {
    throw_bad_input(
        fmt::format("{} was made with another tokenizer than {}; prepare both with the model's own",
                    validation_->path(), train_->path()));
  }
  const auto file = io::model_folder(config_.model.path) / "tokenizer.json";
  std::error_code ignored;
  if (!ours.empty() && std::filesystem::is_regular_file(file, ignored) &&
      sha256_hex(io::read_file(file, kMaxTokenizerBytes)) != ours) {
    spdlog::warn("{} was not made with {}; if that is not the same tokenizer, prepare it again",
                 train_->path(), file.string());
  }
}

// Refuses now, not hours later.
void LanguageWorkload::require_prompts_that_fit() const {
  for (const auto& prompt : sampled_prompts(config_)) {
    const auto length = static_cast<std::int64_t>(train_->encode_prompt(prompt).size());
    models::decoder::require_positions(model_->config(), length + config_.sample.max_tokens,
                                       "a prompt of sample.prompts with sample.max_tokens " +
                                           std::to_string(config_.sample.max_tokens));
  }
}

std::int64_t LanguageWorkload::enough_samples() const {
  const auto tokens = model_->device().is_cpu() ? kEnoughTokensOnCpu : kEnoughTokensOnDevice;
  return std::max(kLeastOfEnough, tokens / config_.data.sequence_length);
}

void LanguageWorkload::describe(coordinator::Recipe& recipe) const {
  recipe.documents = train_->documents();
  recipe.packed = train_->packed();
  const auto& left_out = train_->left_out();
  recipe.pieces_left_out = left_out.pieces;
  recipe.pieces = left_out.pieces > 0 ? left_out.of : 0;
}

std::optional<std::string> LanguageWorkload::warning_of_context() const {
  const double context = model_->config().context;
  const auto length = config_.data.sequence_length;
  if (context <= 0 || static_cast<double>(length) <= context) {
    return std::nullopt;
  }
  return fmt::format(
      "data.sequence_length {} is more than the {:.0f} positions that the model was made for "
      "(max_position_embeddings); what it learns of longer documents may be poor",
      length, context);
}

std::vector<std::string> LanguageWorkload::warnings() const {
  auto warnings = model_->config().warnings;
  const auto end = train_->answer_end_id();
  const std::vector<std::int32_t> ids(end >= 0 ? 1 : 0, static_cast<std::int32_t>(end));
  for (const auto& warning :
       {warning_of_context(), warning_of_end_token(model_->config(), end, train_->decode(ids))}) {
    if (warning) {
      warnings.push_back(*warning);
    }
  }
  for (const auto* dataset : datasets()) {
    if (dataset->left_out().pieces > 0) {
      warnings.push_back(dataset->left_out_text() + "; left out");
    }
  }
  return warnings;
}

std::vector<std::string> LanguageWorkload::plan_lines() const {
  std::vector<std::string> lines = {"targets   " + counted(train_->targets_per_epoch(), "token") +
                                    " of an epoch's count as targets"};
  for (const auto* dataset : datasets()) {
    if (dataset->left_out().pieces > 0) {
      lines.push_back("targets   " + dataset->left_out_text() + "; left out");
    }
  }
  return lines;
}

adapters::ExportContext LanguageWorkload::export_context() const {
  const std::filesystem::path base = config_.model.path;
  const auto end = train_->answer_end_id();
  adapters::ExportContext context{base, "CAUSAL_LM", {}, {}};
  if (end >= 0) {
    context.metadata.emplace(adapters::kAnswerEnd, std::to_string(end));
  }
  context.write_companions = [base, end](const std::filesystem::path& folder,
                                         at::ScalarType stored) {
    models::decoder::write_companions(folder, base, stored, end);
  };
  return context;
}

// As peft's for Llama.
void take_defaults(const std::set<std::string>& given, config::RunConfig& config) {
  if (config.adapter.type == "ia3" && !given.contains("adapter.targets")) {
    config.adapter.targets = {"k_proj", "v_proj", "down_proj"};
  }
}

BaseModel read_base(const config::ModelSection& model) {
  auto fingerprint = io::ModelReader(model.path).fingerprint();
  return {models::decoder::read_decoder_shapes(model.path, nn::float_type_named(model.dtype)),
          std::move(fingerprint)};
}

}  // namespace

// Whatever no other kind takes: what is wrong with such a model is best said by its reader.
const WorkloadKind kLanguage = {
    "language",
    "lorascale-tokens",
    "",
    [](const config::ModelSection&) { return true; },
    [](config::RunConfig& config, const prepare::DataFiles& files,
       const models::WeightPlace& place) -> std::unique_ptr<Workload> {
      return std::make_unique<LanguageWorkload>(config, files, place);
    },
    check_headers,
    describe_data,
    read_base,
    generate,
    merge,
    take_defaults,
};

}  // namespace lorascale::workloads::language
