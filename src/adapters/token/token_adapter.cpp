#include "adapters/token/token_adapter.hpp"

#include <fmt/format.h>

#include "adapters/token/token_rows.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

Embedding word_to_begin_from(const std::string& path) {
  const auto file = embedding_file(path);
  if (!file) {
    throw_bad_input("adapter.init_from: " + path +
                    " is no embedding (.safetensors), nor a folder with one");
  }
  return read_embedding(*file);
}

TokenRows rows_of_model(const config::AdapterSection& section, const AdaptedModel& model) {
  if (model.token_tables.empty()) {
    throw_bad_config(
        "adapter.type: token trains a word of a text encoder, and this model has none that takes "
        "one; use adapter.type: lora");
  }
  std::optional<Embedding> start;
  if (section.init_from) {
    start = word_to_begin_from(*section.init_from);
  }
  return {section.token, model.token_tables, std::move(start)};
}

class TokenAdapter : public Adapter {
 public:
  TokenAdapter(TokenRows rows, at::Device device, std::uint64_t seed)
      : rows_(std::move(rows)), parameters_(rows_.groups(), device) {
    rows_.attach(parameters_, seed);
  }

  TrainableParameters& parameters() override { return parameters_; }
  [[nodiscard]] std::string_view result_name() const override { return "adapter"; }
  void write(const std::filesystem::path& folder, const ExportContext& context) const override {
    rows_.write(folder, parameters_, context);
  }

 private:
  TokenRows rows_;
  TrainableParameters parameters_;
};

}  // namespace

std::unique_ptr<Adapter> make_token_adapter(const config::AdapterSection& section,
                                            const AdaptedModel& model, std::uint64_t seed) {
  auto rows = rows_of_model(section, model);
  return std::make_unique<TokenAdapter>(std::move(rows), model.token_tables.front().weight.device(),
                                        seed);
}

void check_token_adapter(const config::AdapterSection& section, const AdaptedModel& model) {
  rows_of_model(section, model);
}

std::optional<std::string> take_token_settings(const std::set<std::string>& given,
                                               config::RunConfig* config) {
  const auto& section = config->adapter;
  if (!section.init_from || section.init_from->empty() || given.contains("adapter.token.vectors")) {
    return std::nullopt;
  }
  const auto vectors = word_to_begin_from(*section.init_from).rows.front().size(0);
  config->adapter.token.vectors = vectors;
  return fmt::format("adapter.init_from {}: taken from it: token.vectors {}", *section.init_from,
                     vectors);
}

}  // namespace lorascale::adapters
