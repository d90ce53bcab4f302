// The verb `merge` for residual networks.
#include "adapters/formats/merge.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "adapters/base_name.hpp"
#include "adapters/formats/weights_file.hpp"
#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "models/vision/resnet.hpp"
#include "nn/dtypes.hpp"
#include "workloads/vision/vision.hpp"

namespace lorascale::workloads::vision {

std::string merge(const MergeRequest& request) {
  if (request.end_token_id) {
    throw Error(ExitCode::kUsage, "--end-token-id is for language models; leave it out");
  }
  const auto adapter = adapters::read_peft_adapter(request.adapter);
  const auto network = models::vision::load_resnet(
      request.model, nn::float_type_named(request.dtype), at::Device(at::kCPU));
  if (const auto warning = adapters::warning_of_other_base(adapter, request.model)) {
    spdlog::warn("{}", *warning);
  }
  adapters::merge_into_weights(adapter, network->sites());
  adapters::write_weights(request.output, network->file_slots());
  io::write_file_atomically(
      request.output / "config.json",
      std::string_view(models::vision::resnet_config_json(network->config())));
  return fmt::format("merged {} layers into {}", adapter.modules.size(), request.output.string());
}

}  // namespace lorascale::workloads::vision
