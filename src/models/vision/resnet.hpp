// Residual networks (He et al. 2015) as a Model: stem, blocks in stages, mean over the map, linear
// head. Names of the parameters are torchvision's.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "data/images/image_leaf.hpp"
#include "models/model.hpp"
#include "models/vision/residual_block.hpp"
#include "models/vision/resnet_config.hpp"
#include "nn/linear_group.hpp"
#include "nn/pooling.hpp"

namespace lorascale::models::vision {

class ResNet : public Model {
 public:
  // Weights are allocated, not filled; the running state is that of a fresh model.
  ResNet(ResNetConfig config, at::ScalarType dtype, at::Device device);
  // The weights of a fresh model, which follow from the seed.
  ResNet(ResNetConfig config, at::ScalarType dtype, at::Device device, std::uint64_t seed);

  [[nodiscard]] const ResNetConfig& config() const { return config_; }
  [[nodiscard]] std::string family() const override { return "resnet"; }
  [[nodiscard]] at::Device device() const override { return fc_.weight.device(); }
  [[nodiscard]] at::ScalarType dtype() const override { return fc_.weight.scalar_type(); }
  std::vector<nn::Site> sites() override;
  std::vector<nn::ParameterSlot> parameter_slots() override;
  // Running mean and variance: fp32 views of running_state().
  std::vector<nn::ParameterSlot> buffers() override;

  // Both take a data::ImageLeaf. Error where the pictures do not fit the model.
  LeafResult accumulate(const data::Leaf& leaf) override;
  LeafResult evaluate(const data::Leaf& leaf) override;
  [[nodiscard]] std::vector<std::string> measure_names() const override { return {"accuracy"}; }
  [[nodiscard]] double forward_operations(const data::Leaf& leaf) const override;
  [[nodiscard]] ActivationBytes activation_bytes(const data::Leaf& leaf) const override;

  // Sides of the last map, which is the smallest, of pictures of these sides.
  [[nodiscard]] MapSize last_map(const MapSize& picture) const;

  // Of all batch norms, mean and variance in turn; undefined where there are none.
  [[nodiscard]] const at::Tensor& running_state() const { return statistics_; }
  at::Tensor statistics() override { return trains_norms() ? statistics_ : at::Tensor(); }
  void move_statistics(const at::Tensor& mean, const at::Tensor& skip) override;

  // In accumulate() alone (nn/cross_entropy.hpp).
  void set_label_smoothing(double share) { label_smoothing_ = share; }
  // The layout of activations: channels last is what tensor cores work on. By default on GPUs.
  void set_channels_last(bool last) { channels_last_ = last; }

  // Logits [samples, classes], by the running state.
  at::Tensor logits(const data::ImageLeaf& leaf) const;

 private:
  struct Saved {
    ConvUnitSaved stem;
    at::Tensor stem_output;  // after ReLU
    nn::MaxPoolSaved pool;
    std::vector<BlockSaved> blocks;
    MapSize last;         // sides of what the head takes the mean of
    at::Tensor features;  // [samples, channels]
    nn::DeltasSaved fc;
  };

  void initialise(std::uint64_t seed);
  [[nodiscard]] bool trains_norms() const;
  std::vector<ConvUnit*> units();
  [[nodiscard]] std::vector<const ConvUnit*> units() const;
  [[nodiscard]] at::Tensor pixels(const data::ImageLeaf& leaf) const;
  // Number of the first part with something to train: 0 is the stem, 1 + i block i, then the head.
  [[nodiscard]] std::size_t first_trained() const;
  // Without `saved`: by the running state, nothing is kept.
  at::Tensor forward(const at::Tensor& x, const LeafContext& context, Saved* saved) const;
  at::Tensor forward_stem(const at::Tensor& x, const LeafContext& context, Saved* saved) const;
  void backward(const at::Tensor& dlogits, const LeafContext& context, const Saved& saved) const;
  void backward_stem(at::Tensor grad, const LeafContext& context, const Saved& saved) const;

  ResNetConfig config_;
  ConvUnit stem_;
  std::vector<ResidualBlock> blocks_;
  nn::LinearGroup fc_;
  at::Tensor statistics_;  // fp32, mean and variance of each batch norm in turn; perhaps undefined
  double label_smoothing_ = 0;
  bool channels_last_;
};

// Reads a folder with config.json and model.safetensors, or such a file beside its config.json.
// `dtype` empty: as stored.
std::unique_ptr<ResNet> load_resnet(const std::filesystem::path& path,
                                    std::optional<at::ScalarType> dtype, at::Device device);

// The same from the headers of the files alone: every check but those of values, and a model
// without memory.
std::unique_ptr<ResNet> read_resnet_shapes(const std::filesystem::path& path,
                                           std::optional<at::ScalarType> dtype);

}  // namespace lorascale::models::vision
