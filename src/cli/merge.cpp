#include <spdlog/spdlog.h>

#include <algorithm>
#include <iostream>

#include "adapters/base_name.hpp"
#include "adapters/full_export.hpp"
#include "adapters/peft_format.hpp"
#include "base/logging.hpp"
#include "cli/common.hpp"
#include "models/decoder/decoder.hpp"
#include "train/session.hpp"

namespace lorascale::cli {

ExitCode run_merge(const Arguments& arguments) {
  options::options_description description;
  description.add_options()("model", options::value<std::string>()->required(),
                            "base model folder")(
      "adapter", options::value<std::string>()->required(), "PEFT adapter folder")(
      "output", options::value<std::string>()->required(), "new folder for the merged model")(
      "dtype", options::value<std::string>()->default_value("auto"),
      "auto (as stored), bf16, fp16 or fp32")(
      "end-token-id", options::value<std::int64_t>(),
      "the token that ends answers, for generation_config.json; default: as the adapter says, if "
      "this program trained it");
  const auto values = parse(arguments, description, {});
  set_up_logging(0);
  const auto dtype_name = values["dtype"].as<std::string>();
  const auto dtype = train::parse_dtype(dtype_name);
  if (dtype_name != "auto" && !dtype) {
    throw Error(ExitCode::kUsage, "--dtype is auto, bf16, fp16 or fp32, not '" + dtype_name + "'");
  }
  const std::filesystem::path output = values["output"].as<std::string>();
  std::error_code failure;
  const bool exists = std::filesystem::exists(output, failure);
  if (failure || (exists && (!std::filesystem::is_directory(output) ||
                             !std::filesystem::is_empty(output, failure)))) {
    throw Error(ExitCode::kCannotWrite,
                output.string() + " is there and not an empty folder; choose another --output");
  }
  const auto adapter = adapters::read_peft_adapter(values["adapter"].as<std::string>());
  const std::filesystem::path model_folder = values["model"].as<std::string>();
  const auto model = models::decoder::load_decoder(model_folder, dtype, at::Device(at::kCPU));
  if (const auto warning = adapters::warning_of_other_base(adapter, model_folder)) {
    spdlog::warn("{}", *warning);
  }
  const bool given = values.count("end-token-id") != 0;
  const auto end = given ? values["end-token-id"].as<std::int64_t>() : adapter.answer_end_id;
  if (end >= model->vocabulary() || (given && end < 0)) {
    throw Error(given ? ExitCode::kUsage : ExitCode::kBadInput,
                "the end token " + std::to_string(end) + " is none of the model's " +
                    std::to_string(model->vocabulary()) + " tokens; check --end-token-id");
  }
  adapters::merge_into_weights(adapter, model->linear_groups());
  adapters::write_full_model(output, model->parameter_slots(), model_folder, end);
  std::cout << "merged " << adapter.modules.size() << " layers into " << output.string() << '\n';
  const auto& known = model->config().server_eos_ids;
  if (end >= 0 && std::find(known.begin(), known.end(), end) == known.end()) {
    std::cout << "answers end with token " << end
              << ", which the base's files did not name: generation_config.json now does\n";
  }
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
