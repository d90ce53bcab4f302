// Reading a Hugging Face folder into a Decoder.
#include <algorithm>

#include "base/error.hpp"
#include "models/decoder/decoder.hpp"
#include "models/weights_reader.hpp"

namespace lorascale::models::decoder {
namespace {

constexpr std::string_view kPrefix = "model.";
constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

// Files saved from the base model lack the prefix "model.".
WeightsReader open_weights(const std::filesystem::path& path) {
  WeightsReader reader(path);
  const auto& files = reader.files();
  if (files.find(kEmbedding) == nullptr && files.find("embed_tokens.weight") != nullptr) {
    reader.name_by([](const std::string& key) {
      return key.starts_with(kPrefix) ? key.substr(kPrefix.size()) : key;
    });
  }
  return reader;
}

// A head that a tied model's file holds all the same must be the embedding; if not, one of the file
// and its config.json is wrong, and transformers takes the head.
void check_tied_head(const WeightsReader& reader) {
  const auto names = reader.files().keys();
  if (std::find(names.begin(), names.end(), kHead) == names.end()) {
    return;
  }
  const auto& embedding = reader.at(kEmbedding);
  const auto& head = reader.files().at(kHead);
  if (head.shape != embedding.shape ||
      !reader.tensor(kHead).equal(
          reader.tensor(reader.stored(kEmbedding)).to(reader.type_of(head)))) {
    throw_bad_input(reader.where() +
                    ": lm_head.weight is not model.embed_tokens.weight, although config.json has "
                    "tie_word_embeddings: true; set that to false, or remove the tensor");
  }
}

}  // namespace

std::unique_ptr<Decoder> read_decoder_shapes(const std::filesystem::path& path,
                                             std::optional<at::ScalarType> dtype) {
  const auto folder = io::model_folder(path);
  auto config = read_decoder_config(folder / "config.json");
  add_generation_config(folder / "generation_config.json", config);
  const bool tied = config.tied_embeddings;
  const WeightsReader reader = open_weights(path);
  const auto stored = reader.type_of(reader.at(kEmbedding));
  auto shapes = std::make_unique<Decoder>(std::move(config), dtype.value_or(stored), at::kMeta);
  const auto slots = shapes->parameter_slots();
  reader.check(slots);
  reader.refuse_others(slots, [tied](const std::string& key) {
    return key.ends_with(".rotary_emb.inv_freq") || (tied && key == kHead);
  });
  return shapes;
}

std::unique_ptr<Decoder> load_decoder(const std::filesystem::path& folder,
                                      std::optional<at::ScalarType> dtype,
                                      const WeightPlace& place) {
  // Without memory first: a config.json that asks for more than the file holds ends here.
  const auto shapes = read_decoder_shapes(folder, dtype);
  const WeightsReader reader = open_weights(folder);
  if (shapes->config().tied_embeddings && place.is_first()) {
    check_tied_head(reader);
  }
  auto model = std::make_unique<Decoder>(shapes->config(), shapes->dtype(), place.device());
  reader.read(place.settle(model->parameter_slots()));
  return model;
}

}  // namespace lorascale::models::decoder
