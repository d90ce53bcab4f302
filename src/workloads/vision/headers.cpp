// `plan --headers-only` for image classification.
#include "adapters/adapter.hpp"
#include "base/error.hpp"
#include "base/units.hpp"
#include "data/images/image_dataset.hpp"
#include "workloads/vision/network.hpp"
#include "workloads/vision/vision.hpp"

namespace lorascale::workloads::vision {

HeaderReport check_headers(const config::RunConfig& config) {
  const auto& augment = config.data.augment;
  const data::ImageDataset training(config.data.train, {{augment.flip, augment.shift}, {}});
  const auto& images = training.file();
  const auto network = open_shapes(config, images);
  require_leaf(config, *network, images);
  if (config.data.validation) {
    data::require_agreement(images, data::ImageFile(*config.data.validation));
  }
  adapters::check_adapter(config.adapter, adapted_model(*network, config));
  HeaderReport report;
  report.model = network->family();
  report.data = counted(images.images(), "image") + ", header";
  report.most_rows = images.images();
  return report;
}

}  // namespace lorascale::workloads::vision
