#include "workloads/vision/network.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/model_reader.hpp"
#include "nn/dtypes.hpp"

namespace lorascale::workloads::vision {
namespace {

using models::vision::ResNet;
using models::vision::ResNetConfig;

void require_classes_of_data(const ResNetConfig& network, const std::string& model,
                             const data::ImageFile& images) {
  const auto refuse = [&](const std::string& what) {
    throw_bad_config(
        fmt::format("{}: {}; prepare the pictures for it again (--classes-from, --channels of "
                    "scripts/prepare_images.py), or train a new model",
                    model, what));
  };
  if (network.in_channels != images.shape().channels) {
    refuse(fmt::format("the model takes {} channel(s), {} has {}", network.in_channels,
                       images.path().string(), images.shape().channels));
  }
  if (network.classes != std::ssize(images.classes())) {
    refuse(fmt::format("the model has {} classes, {} has {}", network.classes,
                       images.path().string(), images.classes().size()));
  }
  if (!network.labels.empty() && network.labels != images.classes()) {
    refuse("the classes of " + images.path().string() + " have other names or another order");
  }
}

}  // namespace

ResNetConfig architecture_of(const config::ModelSection& section, const data::ImageFile& images) {
  const auto& resnet = section.resnet;
  const auto normalisation = images.normalisation();
  const nlohmann::json json = {{"model_type", "resnet"},
                               {"block", resnet.block},
                               {"layers", resnet.layers},
                               {"width", resnet.width},
                               {"norm", resnet.norm},
                               {"groups", resnet.groups},
                               {"ghost_batch", resnet.ghost_batch},
                               {"stem", resnet.stem},
                               {"in_channels", images.shape().channels},
                               {"classes", images.classes().size()},
                               {"labels", images.classes()},
                               {"image_size", {images.shape().height, images.shape().width}},
                               {"image_mean", normalisation.mean},
                               {"image_std", normalisation.deviation}};
  try {
    // One reader, with one set of checks, for architectures of whatever origin.
    return models::vision::parse_resnet_config(json.dump(), "model.resnet");
  } catch (const Error& error) {
    throw_bad_config(error.what());
  }
}

std::unique_ptr<ResNet> open_network(const config::RunConfig& config, const data::ImageFile& images,
                                     at::Device device) {
  const auto dtype = nn::float_type_named(config.model.dtype);
  if (config.model.architecture) {
    return std::make_unique<ResNet>(architecture_of(config.model, images),
                                    dtype.value_or(at::kFloat), device, config.run.seed);
  }
  auto network = models::vision::load_resnet(config.model.path, dtype, device);
  require_classes_of_data(network->config(), config.model.path, images);
  return network;
}

std::unique_ptr<ResNet> open_shapes(const config::RunConfig& config,
                                    const data::ImageFile& images) {
  const auto dtype = nn::float_type_named(config.model.dtype);
  if (config.model.architecture) {
    return std::make_unique<ResNet>(architecture_of(config.model, images),
                                    dtype.value_or(at::kFloat), at::kMeta);
  }
  auto network = models::vision::read_resnet_shapes(config.model.path, dtype);
  require_classes_of_data(network->config(), config.model.path, images);
  return network;
}

std::string fingerprint_of(const config::RunConfig& config, const ResNetConfig& network) {
  if (!config.model.architecture) {
    return io::ModelReader(config.model.path).fingerprint();
  }
  return sha256_hex(models::vision::resnet_config_json(network) + std::to_string(config.run.seed));
}

void require_leaf(const config::RunConfig& config, const ResNetConfig& network) {
  if (network.norm != models::vision::NormKind::kBatch || !config.adapter.trains_base()) {
    return;
  }
  if (!config.batch.micro) {
    throw_bad_config(
        "model.resnet.norm batch takes its statistics over the pictures of a leaf, which must not "
        "follow from memory or speed: set batch.micro, such as 32");
  }
  if (network.ghost_batch > 0 && *config.batch.micro % network.ghost_batch != 0) {
    throw_bad_config(fmt::format(
        "model.resnet.ghost_batch {} does not divide batch.micro {}: groups of a leaf would differ "
        "in size; change one of them",
        network.ghost_batch, *config.batch.micro));
  }
}

}  // namespace lorascale::workloads::vision
