#include "workloads/diffusion/adapted_pipeline.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "adapters/formats/embedding.hpp"
#include "adapters/formats/merge.hpp"
#include "adapters/formats/picture_lora.hpp"
#include "base/error.hpp"
#include "workloads/diffusion/new_word.hpp"

namespace lorascale::workloads::diffusion {
namespace {

// A word that is whole or, at strength 0, not there.
void add_word(models::diffusion::Pipeline& pipeline, const config::RunConfig& config,
              const std::filesystem::path& file, double strength, Adapted& adapted) {
  auto& texts = pipeline.texts();
  const auto embedding = adapters::read_embedding(file);
  const bool fits =
      embedding.rows.size() == texts.size() &&
      std::ranges::equal(
          embedding.rows, texts, {}, [](const at::Tensor& rows) { return rows.size(1); },
          [](const auto& text) { return text.config().hidden; });
  if (!fits) {
    throw_bad_input(file.string() +
                    " does not fit this model's text encoders; was it made for another kind of "
                    "model?");
  }
  if (strength == 0) {
    return;
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    texts[i].new_tokens().rows = embedding.rows[i].to(texts[i].device(), pipeline.dtype());
  }
  adapted.new_word = spell_word(config, pipeline.config(), embedding.word,
                                embedding.rows.front().size(0), file.string())
                         .forms;
  adapted.parameters += fmt::format(", TI: {}", file.lexically_normal().string());
}

}  // namespace

std::optional<Adapted> add_adapter(models::diffusion::Pipeline& pipeline,
                                   const config::RunConfig& config,
                                   const std::filesystem::path& path, double strength) {
  const auto file = adapters::picture_lora(path);
  const auto word = adapters::embedding_file(path);
  if (!file && !word) {
    return std::nullopt;
  }
  Adapted adapted;
  if (file && file != word) {
    adapters::merge_into_weights(adapters::read_picture_lora(*file, pipeline.sites()),
                                 pipeline.sites(), strength);
    adapted.parameters =
        fmt::format(", LoRA: {} at {}", path.lexically_normal().string(), strength);
  } else if (word && strength != 0 && strength != 1) {
    throw Error(ExitCode::kUsage, word->string() +
                                      " is the embedding of a word, which has no strength but 0 "
                                      "and 1; leave --strength out");
  }
  if (word) {
    add_word(pipeline, config, *word, strength, adapted);
  }
  return adapted;
}

}  // namespace lorascale::workloads::diffusion
