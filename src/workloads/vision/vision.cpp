#include "workloads/vision/vision.hpp"

#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "data/images/image_dataset.hpp"
#include "io/durable_file.hpp"
#include "io/model_reader.hpp"
#include "io/strict_json.hpp"
#include "workloads/vision/network.hpp"

namespace lorascale::workloads::vision {
namespace {

using data::ImageDataset;
using models::vision::NormKind;
using models::vision::ResNet;

// Beyond so many pictures a leaf, products are as fast as they get.
constexpr std::int64_t kEnoughOnCpu = 128;
constexpr std::int64_t kEnoughOnDevice = 1024;

class VisionWorkload : public Workload {
 public:
  VisionWorkload(config::RunConfig& config, const prepare::DataFiles& files, at::Device device);

  models::Model& model() override { return *network_; }
  [[nodiscard]] const data::Dataset& train() const override { return *train_; }
  [[nodiscard]] const data::Dataset* validation() const override { return validation_.get(); }
  Preview* preview() override { return nullptr; }
  [[nodiscard]] const Words& words() const override { return words_; }
  [[nodiscard]] std::string model_fingerprint() const override { return fingerprint_; }
  [[nodiscard]] std::int64_t enough_samples() const override {
    return network_->device().is_cpu() ? kEnoughOnCpu : kEnoughOnDevice;
  }
  [[nodiscard]] std::vector<std::string> warnings() const override { return {}; }
  [[nodiscard]] adapters::ExportContext export_context() const override;

 private:
  Words words_;
  std::string base_;                                  // empty: it began untrained
  std::unique_ptr<ImageDataset> train_, validation_;  // the latter may be null
  std::unique_ptr<ResNet> network_;
  std::string fingerprint_;
};

VisionWorkload::VisionWorkload(config::RunConfig& config, const prepare::DataFiles& files,
                               at::Device device)
    : base_(config.model.path) {
  words_.unit = "image";
  words_.rate = "images/s";
  words_.less =
      "smaller pictures (scripts/prepare_images.py --size), a smaller model.resnet.width or "
      "model.dtype";
  words_.no_targets = "no picture of it counts as a target";
  auto images = std::make_unique<data::ImageFile>(files.train);
  network_ = open_network(config, *images, device);
  const auto& network = network_->config();
  require_leaf(config, *network_, *images);
  if (network.norm == NormKind::kBatch && config.adapter.trains_base()) {
    words_.leaf_matters = "batch normalisation is over a leaf";
    words_.leaf_group = network.ghost_batch;
  }
  network_->set_label_smoothing(config.loss.label_smoothing);
  fingerprint_ = fingerprint_of(config, network);
  // A model that was trained before knows pictures as it was shown them then.
  data::ChannelStatistics normalisation{network.image_mean, network.image_std};
  if (normalisation.mean.empty()) {
    normalisation = images->normalisation();
  }
  const auto& augment = config.data.augment;
  train_ = std::make_unique<ImageDataset>(
      std::move(images), data::ImageSettings{{augment.flip, augment.shift}, normalisation});
  if (files.validation) {
    auto validation = std::make_unique<data::ImageFile>(*files.validation);
    // First: the normalisation is of the channels that are trained on.
    data::require_agreement(train_->file(), *validation);
    validation_ = std::make_unique<ImageDataset>(std::move(validation),
                                                 data::ImageSettings{{}, normalisation});
  }
}

adapters::ExportContext VisionWorkload::export_context() const {
  adapters::ExportContext context{base_, "", {}, {}};
  auto form = network_->config();
  const auto& shape = train_->file().shape();
  form.image_size = {shape.height, shape.width};  // of the pictures that it has learnt from last
  context.write_companions = [config = std::move(form)](const std::filesystem::path& folder,
                                                        at::ScalarType /*stored*/) {
    io::write_file_atomically(folder / "config.json",
                              std::string_view(models::vision::resnet_config_json(config)));
  };
  return context;
}

bool takes(const config::ModelSection& model) {
  if (model.architecture) {
    return true;
  }
  const auto file = io::model_folder(model.path) / "config.json";
  std::error_code unknown;
  if (!std::filesystem::is_regular_file(file, unknown)) {
    return false;
  }
  try {
    const auto json = io::read_json_file(file);
    return json.is_object() && json.value("model_type", nlohmann::json()) == "resnet";
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

const WorkloadKind kVision = {
    "vision",
    "lorascale-images",
    data::kImageFileMaker,
    takes,
    [](config::RunConfig& config, const prepare::DataFiles& files,
       const models::WeightPlace& place) -> std::unique_ptr<Workload> {
      return std::make_unique<VisionWorkload>(config, files, place.device());
    },
    check_headers,
    describe_data,
    nullptr,  // its base is small beside its activations
    nullptr,
    merge,
};

}  // namespace lorascale::workloads::vision
