// `plan --headers-only` for language models.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "adapters/adapter.hpp"
#include "base/error.hpp"
#include "base/units.hpp"
#include "data/tokens/token_header.hpp"
#include "io/hdf5_file.hpp"
#include "io/model_reader.hpp"
#include "models/decoder/decoder.hpp"
#include "nn/dtypes.hpp"
#include "prepare/preparation.hpp"
#include "prepare/source_files.hpp"
#include "workloads/language/language.hpp"

namespace lorascale::workloads::language {
namespace {

// Nothing where the data is still to be prepared, which the job does where it runs.
std::optional<data::TokenHeader> open_data(const std::filesystem::path& path) {
  if (!prepare::is_data_file(path)) {
    return std::nullopt;
  }
  const io::Hdf5File file(path);
  return data::read_token_header(file, path);
}

}  // namespace

HeaderReport check_headers(const config::RunConfig& config) {
  static_cast<void>(io::ModelReader(config.model.path));  // what `train` opens first
  const auto model = models::decoder::read_decoder_shapes(config.model.path,
                                                          nn::float_type_named(config.model.dtype));
  prepare::require_sources(config);
  const auto data = open_data(config.data.train);
  if (config.data.validation) {
    const auto validation = open_data(*config.data.validation);
    if (data && validation && !data->tokenizer.empty() && !validation->tokenizer.empty() &&
        data->tokenizer != validation->tokenizer) {
      throw_bad_input(fmt::format(
          "{} was made with another tokenizer than {}; prepare both with the model's own",
          *config.data.validation, config.data.train));
    }
  }
  adapters::check_adapter(config.adapter, adapted_model(*model, config));
  HeaderReport report;
  report.model = model->config().model_type;
  if (data) {
    report.data = fmt::format("{}, {}, header", counted(data->documents, "document"),
                              counted(data->tokens, "token"));
    // How many rows the documents make is not in a header.
    report.most_rows = data->documents + data->tokens / config.data.sequence_length;
    report.tokens_per_row =
        std::max(1.0, static_cast<double>(data->tokens) / static_cast<double>(report.most_rows));
  }
  return report;
}

}  // namespace lorascale::workloads::language
