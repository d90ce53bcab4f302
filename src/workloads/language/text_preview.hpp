// What the model makes of the prompts of sample.prompts.
#pragma once

#include "config/run_config.hpp"
#include "data/tokens/token_dataset.hpp"
#include "models/decoder/decoder.hpp"
#include "workloads/workload.hpp"

namespace lorascale::workloads::language {

class TextPreview : public Preview {
 public:
  // All must outlive it.
  TextPreview(const models::decoder::Decoder& model, const data::TokenDataset& dataset,
              const config::RunConfig& config)
      : model_(model), dataset_(dataset), config_(config) {}

  // One text with all prompts and what follows each.
  std::vector<Item> make() override;

 private:
  const models::decoder::Decoder& model_;
  const data::TokenDataset& dataset_;
  const config::RunConfig& config_;
};

}  // namespace lorascale::workloads::language
