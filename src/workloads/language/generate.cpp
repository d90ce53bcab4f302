// The verb `generate` for language models: base, adapter and prompt to text.
#include "models/decoder/generate.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>

#include "adapters/base_name.hpp"
#include "adapters/formats/merge.hpp"
#include "base/error.hpp"
#include "data/tokens/token_dataset.hpp"
#include "nn/dtypes.hpp"
#include "workloads/language/end_tokens.hpp"
#include "workloads/language/language.hpp"

namespace lorascale::workloads::language {
namespace {

using data::TokenDataset;
using models::decoder::Decoder;

// Token ids given as numbers, for models whose tokenizer is not at hand.
std::vector<std::int32_t> parse_ids(const std::string& text, std::int64_t vocabulary) {
  constexpr const char* kBetween = " ,\t\n";
  std::vector<std::int32_t> ids;
  for (auto at = text.find_first_not_of(kBetween); at != std::string::npos;) {
    const auto end = std::min(text.find_first_of(kBetween, at), text.size());
    std::int64_t id = -1;
    const auto [rest, status] = std::from_chars(text.data() + at, text.data() + end, id);
    if (status != std::errc() || rest != text.data() + end || id < 0 || id >= vocabulary) {
      throw Error(
          ExitCode::kUsage,
          fmt::format("--ids takes token ids from 0 to {} separated by spaces or commas, not '{}'",
                      vocabulary - 1, text));
    }
    ids.push_back(static_cast<std::int32_t>(id));
    at = text.find_first_not_of(kBetween, end);
  }
  if (ids.empty()) {
    throw Error(ExitCode::kUsage, "--ids is empty; give at least one token id to continue");
  }
  return ids;
}

bool knows(const TokenDataset& dataset, const std::string& prompt) {
  try {
    static_cast<void>(dataset.encode_prompt(prompt));
    return true;
  } catch (const Error&) {
    return false;
  }
}

// The model with what the run, or the request, adapts it by; `answer_end` is where its answers end,
// -1: unknown.
struct Writer {
  std::unique_ptr<Decoder> model;
  std::int64_t answer_end = -1;
};

Writer open_writer(const config::RunConfig& config, at::Device device,
                   const GenerateRequest& request) {
  const std::filesystem::path run = config.run.output_dir;
  const bool whole = config.adapter.trains_base() && std::filesystem::exists(run / "model");
  const auto base = whole ? run / "model" : std::filesystem::path(config.model.path);
  Writer writer{
      models::decoder::load_decoder(base, nn::float_type_named(config.model.dtype), device)};
  for (const auto& warning : writer.model->config().warnings) {
    spdlog::warn("{}", warning);
  }
  const auto folder = request.adapter.value_or(run / "adapter");
  if (request.adapter || (!whole && std::filesystem::exists(folder))) {
    const auto adapter = adapters::read_peft_adapter(folder);
    if (const auto warning = adapters::warning_of_other_base(adapter, base)) {
      spdlog::warn("{}", *warning);
    }
    adapters::merge_into_weights(adapter, writer.model->sites());
    writer.answer_end = adapter.answer_end_id;
  } else if (!whole) {
    spdlog::warn("{} does not exist: this is the base model without an adapter", folder.string());
  }
  return writer;
}

// The data set whose table and prompts are used; null where ids go in and out.
std::unique_ptr<TokenDataset> open_texts(const config::RunConfig& config, std::int64_t vocabulary,
                                         const GenerateRequest& request) {
  if (!request.prompt && !request.decode) {
    return nullptr;
  }
  const auto open = [&](const std::filesystem::path& file) {
    return std::make_unique<TokenDataset>(
        file, data::TokenRowSettings{config.data.sequence_length, false, vocabulary, 1, true});
  };
  // What the run trained on, if there is a run and it knows the prompt: no source of it is needed
  // again. A prompt that the configuration names since is prepared.
  if (request.trained_on) {
    auto dataset = open(*request.trained_on);
    if (!request.prompt || knows(*dataset, *request.prompt)) {
      return dataset;
    }
  }
  return open(request.prepare());
}

void warn_beyond_context(const models::decoder::DecoderConfig& model, std::size_t prompt,
                         std::int64_t max_tokens) {
  const auto most = static_cast<std::int64_t>(prompt) + max_tokens;
  if (model.context > 0 && static_cast<double>(most) > model.context) {
    spdlog::warn(
        "the prompt of {} and up to {} new tokens are more than the {:.0f} positions that the "
        "model was made for (max_position_embeddings); what comes beyond them may be poor",
        prompt, max_tokens, model.context);
  }
}

}  // namespace

std::string generate(const config::RunConfig& config, at::Device device,
                     const GenerateRequest& request) {
  const auto [model, answer_end] = open_writer(config, device, request);
  const auto given =
      request.ids ? parse_ids(*request.ids, model->vocabulary()) : std::vector<std::int32_t>{};
  const auto texts = open_texts(config, model->vocabulary(), request);
  models::decoder::GenerationSettings settings{config.sample.max_tokens, config.sample.temperature,
                                               config.sample.top_p, config.run.seed,
                                               end_ids(model->config(), texts.get())};
  if (answer_end >= 0) {
    settings.stop_ids.push_back(answer_end);
  }
  settings.max_tokens = request.max_tokens.value_or(settings.max_tokens);
  const auto prompt = request.prompt ? texts->encode_prompt(*request.prompt) : given;
  warn_beyond_context(model->config(), prompt.size(), settings.max_tokens);
  const auto ids = models::decoder::generate(*model, prompt, settings);
  return texts ? texts->decode(ids) : fmt::format("{}", fmt::join(ids, " "));
}

}  // namespace lorascale::workloads::language
