// Textual inversion (Gal et al. 2022): the rows that a new word has in the tables of text encoders,
// trained as one group of an adapter's parameters.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "adapters/adapter.hpp"
#include "adapters/formats/embedding.hpp"

namespace lorascale::adapters {

class TokenRows {
 public:
  // Of no word where the settings name none, or the model has no table that takes one. `start`:
  // what the rows begin as, rather than as the settings say; Error(kBadConfig) where that does not
  // fit.
  TokenRows(const config::TokenSection& settings, std::vector<nn::TokenTable> tables,
            std::optional<Embedding> start);

  [[nodiscard]] bool any() const { return !tables_.empty(); }
  // One group of these rows; none where there is no word.
  [[nodiscard]] std::vector<TrainableParameters::GroupSpec> groups() const;
  // Fills the rows, which are among the parameters, and connects them to the text encoders: as
  // other words are (adapter.token.init), or normal with the mean and deviation that each of their
  // channels has in the table, from (seed, name).
  void attach(TrainableParameters& parameters, std::uint64_t seed) const;
  // The file of the word.
  void write(const std::filesystem::path& folder, const TrainableParameters& parameters,
             const ExportContext& context) const;

 private:
  config::TokenSection settings_;
  std::vector<nn::TokenTable> tables_;
  std::optional<Embedding> start_;
};

}  // namespace lorascale::adapters
