#include "workloads/language/text_preview.hpp"

#include <fmt/format.h>

#include "models/decoder/generate.hpp"
#include "workloads/language/end_tokens.hpp"

namespace lorascale::workloads::language {

std::vector<Preview::Item> TextPreview::make() {
  const auto& section = config_.sample;
  models::decoder::GenerationSettings settings{section.max_tokens, section.temperature,
                                               section.top_p, config_.run.seed,
                                               end_ids(model_.config(), &dataset_)};
  std::string text;
  for (const auto& prompt : section.prompts) {
    const auto ids = dataset_.encode_prompt(prompt);
    const auto continuation = dataset_.decode(models::decoder::generate(model_, ids, settings));
    ++settings.seed;  // or chance would carry every prompt to the same words
    // Where the ids say more than the prompt, as in a chat, what follows is an answer.
    const bool answers = !dataset_.decode(ids).ends_with(prompt);
    text += fmt::format("> {0}\n{0}{1}{2}\n\n", prompt, answers ? "\n" : "", continuation);
  }
  return {{"", text}};
}

}  // namespace lorascale::workloads::language
