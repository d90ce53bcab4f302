// config.json of a residual network (He et al. 2015) as torchvision builds it; what it describes is
// lorascale's own. What is not known is refused by name.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lorascale::models::vision {

enum class BlockKind {
  kBasic,       // two convolutions of 3 x 3
  kBottleneck,  // 1 x 1, 3 x 3, and 1 x 1 to four times the width
};
enum class NormKind { kBatch, kGroup, kNone };
enum class StemKind {
  kSmall,  // 3 x 3, for pictures of some 32 pixels a side
  kLarge,  // 7 x 7 at every second place and a maximum over 3 x 3, for those of some 224
};

struct ResNetConfig {
  BlockKind block = BlockKind::kBasic;
  std::vector<std::int64_t> layers;  // blocks of each stage; stages double the width
  std::int64_t width = 64;           // channels of the stem and of the first stage's inside
  NormKind norm = NormKind::kBatch;
  std::int64_t groups = 32;      // of kGroup; divides the width
  std::int64_t ghost_batch = 0;  // of kBatch: samples normalised together; 0: a leaf's
  double norm_eps = 1e-5;
  double norm_momentum = 0.1;  // of kBatch: the share of an update in the running state
  StemKind stem = StemKind::kLarge;
  std::int64_t in_channels = 3;
  std::int64_t classes = 0;
  // What the pictures were that it was trained on; empty or zero where nobody said.
  std::vector<std::string> labels;            // [classes] names
  std::array<std::int64_t, 2> image_size{};   // height, width
  std::vector<double> image_mean, image_std;  // [in_channels] of pixels in 0 to 1

  // Channels that a block of width `inside` has at its end.
  [[nodiscard]] std::int64_t block_channels(std::int64_t inside) const {
    return block == BlockKind::kBottleneck ? 4 * inside : inside;
  }
};

// Throws Error(kBadInput) naming the file, the field and the remedy.
ResNetConfig read_resnet_config(const std::filesystem::path& config_json);
ResNetConfig parse_resnet_config(const std::string& text, const std::string& where);

// The text that parse_resnet_config() makes the same of.
std::string resnet_config_json(const ResNetConfig& config);

}  // namespace lorascale::models::vision
