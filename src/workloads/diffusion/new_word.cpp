#include "workloads/diffusion/new_word.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.hpp"
#include "models/diffusion/diffusion_model.hpp"
#include "workloads/diffusion/caption_encoder.hpp"

namespace lorascale::workloads::diffusion {
namespace {

using Ids = std::vector<std::int32_t>;

// What stands beside words without a space. Of a word that ends with a sign, as <this>, it makes
// other tokens: ">," is one.
constexpr std::array kBefore = {"", "(", "((", "\"", "'", "[", "{", "*", "-", "/"};
constexpr std::array kBehind = {"",  ",", ".", ";",  ":",  "!",   "?",  ")", "))", "\"",
                                "'", "]", "}", "),", ").", "\",", "'s", "-", "/",  "*"};

Ids joined(const Ids& before, const Ids& word, const Ids& behind) {
  Ids all = before;
  all.insert(all.end(), word.begin(), word.end());
  all.insert(all.end(), behind.begin(), behind.end());
  return all;
}

std::int64_t vocabulary_of(const models::diffusion::PipelineConfig& pipeline) {
  const auto size = pipeline.texts.front().clip.vocabulary;
  for (const auto& text : pipeline.texts) {
    if (text.clip.vocabulary != size) {
      throw_bad_config(
          "adapter.token.word: this model's text encoders differ in their vocabularies, and a word "
          "would have two ids; train LoRA alone");
    }
  }
  return size;
}

}  // namespace

NewWord spell_word(const config::RunConfig& config,
                   const models::diffusion::PipelineConfig& pipeline, const std::string& word,
                   std::int64_t vectors, const std::string& where) {
  std::vector<std::string> texts;
  for (const auto* before : kBefore) {
    for (const auto* behind : kBehind) {
      texts.push_back(before + word + behind);
    }
  }
  texts.insert(texts.end(), kBefore.begin(), kBefore.end());
  texts.insert(texts.end(), kBehind.begin(), kBehind.end());
  const auto encoded = encode_captions(config, texts);
  const auto& ids = encoded.ids;
  const Ids& alone = ids.front();
  const auto& tokens = encoded.tokens;
  if (alone.empty() || std::ranges::count(alone, tokens.begin) > 0 ||
      std::ranges::count(alone, tokens.end) > 0) {
    throw_bad_config(
        fmt::format("{}: '{}' is no word to the model's tokenizer; take another one", where, word));
  }
  Ids becomes;
  for (std::int64_t i = 0; i < vectors; ++i) {
    becomes.push_back(static_cast<std::int32_t>(vocabulary_of(pipeline) + i));
  }
  NewWord result{{}, tokens.tokenizer};
  const auto* of_before = &ids[kBefore.size() * kBehind.size()];
  const auto* of_behind = of_before + kBefore.size();
  for (std::size_t i = 0; i < kBefore.size(); ++i) {
    for (std::size_t j = 0; j < kBehind.size(); ++j) {
      const Ids& spelt = ids[i * kBehind.size() + j];
      if (spelt != joined(of_before[i], alone, of_behind[j])) {
        result.forms.push_back({spelt, joined(of_before[i], becomes, of_behind[j])});
      }
    }
  }
  result.forms.push_back({alone, becomes});
  // What holds more of the caption counts before what it begins with.
  std::ranges::stable_sort(result.forms, std::ranges::greater(),
                           [](const data::WordForm& form) { return form.spelt.size(); });
  return result;
}

NewWord trained_word(const config::RunConfig& config,
                     const models::diffusion::PipelineConfig& pipeline) {
  const auto& token = config.adapter.token;
  return token.word ? spell_word(config, pipeline, *token.word, token.vectors, "adapter.token.word")
                    : NewWord();
}

void require_word(const NewWord& word, const data::PictureDataset& training,
                  const config::RunConfig& config) {
  if (word.forms.empty()) {
    return;
  }
  if (word.tokenizer != training.file().tokens().tokenizer) {
    throw_bad_input(training.path() +
                    " was made with another tokenizer than that of adapter.token.word; prepare it "
                    "with the model's own");
  }
  if (training.captions_with_new_word() == 0) {
    throw_bad_input(fmt::format(
        "{}: no caption has the word '{}' of adapter.token.word; write it into the captions and "
        "make the file again ({} --prefix), or name a word that they have",
        training.path(), *config.adapter.token.word, data::kCaptionedFileMaker));
  }
}

std::vector<nn::TokenTable> token_tables(models::Model& model, const config::RunConfig& config) {
  auto* denoiser = dynamic_cast<models::diffusion::DiffusionModel*>(&model);
  const auto& token = config.adapter.token;
  if (denoiser == nullptr || !token.word) {
    return {};
  }
  std::vector<std::int64_t> ids;
  if (token.init) {
    const auto encoded = encode_captions(config, {*token.init});
    ids.assign(encoded.ids.front().begin(), encoded.ids.front().end());
    if (ids.empty()) {
      throw_bad_config("adapter.token.init: '" + *token.init +
                       "' is no word to the model's tokenizer; take another one");
    }
  }
  std::vector<nn::TokenTable> tables;
  auto& texts = denoiser->pipeline().texts();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    auto& table = tables.emplace_back(texts[i].token_table(models::diffusion::text_part_name(i)));
    for (std::size_t j = 0; !ids.empty() && j < static_cast<std::size_t>(token.vectors); ++j) {
      table.begins_as.push_back(ids[j % ids.size()]);
    }
  }
  return tables;
}

}  // namespace lorascale::workloads::diffusion
