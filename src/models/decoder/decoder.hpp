// Decoder-only language models of the Llama family as a Model: embedding, blocks, final norm,
// chunked head.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "data/tokens/token_leaf.hpp"
#include "models/decoder/block.hpp"
#include "models/decoder/config.hpp"
#include "models/model.hpp"
#include "models/weight_place.hpp"

namespace lorascale::models::decoder {

class Decoder : public Model {
 public:
  // Weights are allocated, not filled.
  Decoder(DecoderConfig config, at::ScalarType dtype, at::Device device);

  [[nodiscard]] const DecoderConfig& config() const { return config_; }
  [[nodiscard]] std::int64_t vocabulary() const { return config_.vocabulary; }
  [[nodiscard]] std::string family() const override { return config_.model_type; }
  [[nodiscard]] at::Device device() const override { return embedding_.device(); }
  [[nodiscard]] at::ScalarType dtype() const override { return embedding_.scalar_type(); }
  std::vector<nn::Site> sites() override;
  [[nodiscard]] std::vector<std::string> parts_without_site() const override {
    return {"lm_head", "model.embed_tokens"};
  }
  std::vector<nn::ParameterSlot> parameter_slots() override;

  // Leaves are TokenLeaf.
  LeafResult accumulate(const data::Leaf& leaf) override;
  LeafResult evaluate(const data::Leaf& leaf) override;
  [[nodiscard]] double forward_operations(const data::Leaf& leaf) const override;
  [[nodiscard]] ActivationBytes activation_bytes(const data::Leaf& leaf) const override;

  // Keep only each block's input in forward and compute it again in backward.
  void set_recompute(bool recompute) { recompute_ = recompute; }

  // In accumulate() alone (nn/cross_entropy.hpp).
  void set_label_smoothing(double share) { label_smoothing_ = share; }

  // Logits [tokens, vocabulary] of a whole leaf, for tests and small inputs.
  at::Tensor logits(const data::TokenLeaf& leaf);

  // Generation: feeds tokens after those in the caches; returns the logits [vocabulary] of the last
  // one.
  std::vector<KeyValueCache> make_caches(std::int64_t capacity) const;
  at::Tensor decode(std::span<const std::int32_t> tokens, std::vector<KeyValueCache>& caches) const;

 private:
  BlockContext make_context(const data::TokenLeaf& leaf) const;
  at::Tensor embed(std::span<const std::int32_t> tokens) const;
  at::Tensor run_blocks(const data::TokenLeaf& leaf, const BlockContext& context,
                        std::vector<BlockSaved>* saved) const;
  void backward_blocks(at::Tensor grad, const data::TokenLeaf& leaf, const BlockContext& context,
                       std::vector<BlockSaved>& saved);
  [[nodiscard]] const at::Tensor& head() const { return head_.defined() ? head_ : embedding_; }
  [[nodiscard]] const at::Tensor& head_grad() const {
    return head_.defined() ? head_grad_ : embedding_grad_;
  }

  DecoderConfig config_;
  nn::RopeFrequencies frequencies_;
  at::Tensor embedding_, embedding_grad_;    // [vocabulary, hidden]
  at::Tensor final_norm_, final_norm_grad_;  // [hidden]
  at::Tensor head_, head_grad_;              // [vocabulary, hidden]; undefined where tied
  std::vector<Block> blocks_;
  bool recompute_ = false;
  double label_smoothing_ = 0;
};

// Reads a Hugging Face folder, or a .safetensors file beside its config.json, into a model. `dtype`
// empty: as stored.
std::unique_ptr<Decoder> load_decoder(const std::filesystem::path& path,
                                      std::optional<at::ScalarType> dtype,
                                      const WeightPlace& place);

// The same from the headers of the files alone: every check but those of values, and a model
// without memory.
std::unique_ptr<Decoder> read_decoder_shapes(const std::filesystem::path& folder,
                                             std::optional<at::ScalarType> dtype);

}  // namespace lorascale::models::decoder
