// Reading a folder into a ResNet.
#include "base/error.hpp"
#include "io/untrusted_text.hpp"
#include "models/vision/resnet.hpp"
#include "models/weights_reader.hpp"

namespace lorascale::models::vision {
namespace {

// Updates that torch's batch norms have seen: nothing follows from it at a fixed momentum.
bool is_harmless(const std::string& key) {
  return key.ends_with(".num_batches_tracked");
}

void require_variances(ResNet& model, const WeightsReader& reader) {
  for (const auto& slot : model.buffers()) {
    const auto& key = slot.parts.front().key;
    if (key.ends_with(".running_var") && slot.value->lt(0).any().item<bool>()) {
      throw_bad_input(reader.where() + ": tensor " + io::in_quotes(key) +
                      " holds a variance below zero; the file is damaged, get it again");
    }
  }
}

}  // namespace

std::unique_ptr<ResNet> read_resnet_shapes(const std::filesystem::path& path,
                                           std::optional<at::ScalarType> dtype) {
  auto config = read_resnet_config(io::model_folder(path) / "config.json");
  const WeightsReader reader(path);
  const auto stored = reader.type_of(reader.at("fc.weight"));
  auto shapes =
      std::make_unique<ResNet>(std::move(config), dtype.value_or(stored), at::Device(at::kMeta));
  const auto slots = shapes->file_slots();
  reader.check(slots);
  reader.refuse_others(slots, is_harmless);
  return shapes;
}

std::unique_ptr<ResNet> load_resnet(const std::filesystem::path& path,
                                    std::optional<at::ScalarType> dtype, at::Device device) {
  // Without memory first: a config.json that asks for more than the file holds ends here.
  const auto shapes = read_resnet_shapes(path, dtype);
  const WeightsReader reader(path);
  auto model = std::make_unique<ResNet>(shapes->config(), shapes->dtype(), device);
  reader.read(model->file_slots());
  require_variances(*model, reader);
  return model;
}

}  // namespace lorascale::models::vision
