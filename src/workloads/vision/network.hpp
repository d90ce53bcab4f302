// The residual network of a configuration: read from a folder, or begun.
#pragma once

#include <memory>
#include <string>

#include "config/run_config.hpp"
#include "data/images/image_file.hpp"
#include "models/vision/resnet.hpp"

namespace lorascale::workloads::vision {

// The architecture of model.resnet for pictures and classes of `images`. Error(kBadConfig) where
// its numbers do not fit together.
models::vision::ResNetConfig architecture_of(const config::ModelSection& section,
                                             const data::ImageFile& images);

// Untrained, with weights that follow from `seed`, or from model.path. Error(kBadConfig) where that
// model is not one of the data's classes and channels.
std::unique_ptr<models::vision::ResNet> open_network(const config::RunConfig& config,
                                                     const data::ImageFile& images,
                                                     at::Device device);

// The same from headers alone: a network without memory.
std::unique_ptr<models::vision::ResNet> open_shapes(const config::RunConfig& config,
                                                    const data::ImageFile& images);

// Batch normalisation takes its statistics over a leaf: a leaf that follows from memory or speed
// would make results follow from the machine. Error(kBadConfig) where batch.micro is not given, is
// no whole number of ghost batches, or leaves a single value for the statistics at an epoch's end.
void require_leaf(const config::RunConfig& config, const models::vision::ResNet& network,
                  const data::ImageFile& images);

// Tells what training begins with apart.
std::string fingerprint_of(const config::RunConfig& config,
                           const models::vision::ResNetConfig& network);

}  // namespace lorascale::workloads::vision
