#include "workloads/vision/network.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/units.hpp"
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

void require_leaf(const config::RunConfig& config, const ResNet& network,
                  const data::ImageFile& images) {
  const auto& form = network.config();
  if (form.norm != models::vision::NormKind::kBatch || !config.adapter.trains_base()) {
    return;
  }
  if (!config.batch.micro) {
    throw_bad_config(
        (config.model.architecture ? "model.resnet.norm batch"
                                   : config.model.path + ": its batch normalisation") +
        " takes its statistics over the pictures of a leaf, which must not follow from memory or "
        "speed: set batch.micro, such as 32");
  }
  const auto micro = *config.batch.micro;
  if (form.ghost_batch > 0 && micro % form.ghost_batch != 0) {
    throw_bad_config(fmt::format(
        "{} {} does not divide batch.micro {}: groups of a leaf would differ in size; {}",
        config.model.architecture ? "model.resnet.ghost_batch"
                                  : config.model.path + ": its ghost_batch",
        form.ghost_batch, micro,
        config.model.architecture ? "change one of them" : "change batch.micro"));
  }
  // Groups in the order of an epoch: all are whole but the last.
  const auto group = form.ghost_batch > 0 ? form.ghost_batch : micro;
  const auto last = images.images() % group;
  const auto& shape = images.shape();
  if ((group == 1 || last == 1) && network.last_map({shape.height, shape.width}).positions() == 1) {
    throw_bad_config(fmt::format(
        "batch normalisation over a single picture has no variance where the map is 1 x 1, as "
        "after {} stages of pictures of {} x {}, and {} of {} in groups of {} {}; take another {}, "
        "larger pictures, or a network with fewer stages or norm group",
        form.layers.size(), shape.height, shape.width, counted(images.images(), "image"),
        images.path().string(), group, group == 1 ? "are single" : "leave one over",
        form.ghost_batch > 0 ? "ghost_batch" : "batch.micro"));
  }
}

}  // namespace lorascale::workloads::vision
