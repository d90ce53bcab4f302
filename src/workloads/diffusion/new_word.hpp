// The word of adapter.token.word: how captions spell it in the model's own tokens, and the ids that
// stand for it in the text encoders.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "data/pictures/picture_dataset.hpp"
#include "models/diffusion/pipeline_config.hpp"
#include "models/model.hpp"
#include "nn/new_tokens.hpp"

namespace lorascale::workloads::diffusion {

struct NewWord {
  std::vector<data::WordForm> forms;  // empty: there is none
  std::string tokenizer;              // SHA-256, as that of captions
};

// Forms of `word`, also where a sign of punctuation beside it becomes part of its tokens. The ids
// that it becomes follow the vocabulary. Error(kBadConfig) where it is nothing to the tokenizer,
// with `where` it comes from.
NewWord spell_word(const config::RunConfig& config,
                   const models::diffusion::PipelineConfig& pipeline, const std::string& word,
                   std::int64_t vectors, const std::string& where);
// The one that the configuration trains.
NewWord trained_word(const config::RunConfig& config,
                     const models::diffusion::PipelineConfig& pipeline);

// Error(kBadInput) where no caption has it, or the file was made with another tokenizer.
void require_word(const NewWord& word, const data::PictureDataset& training,
                  const config::RunConfig& config);

// What an adapter may give new words to, with the ids of adapter.token.init.
std::vector<nn::TokenTable> token_tables(models::Model& model, const config::RunConfig& config);

}  // namespace lorascale::workloads::diffusion
