#include <iostream>

#include "base/logging.hpp"
#include "cli/common.hpp"
#include "nn/dtypes.hpp"
#include "workloads/tools.hpp"

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
  if (dtype_name != "auto" && !nn::float_type_named(dtype_name)) {
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
  workloads::MergeRequest request{values["model"].as<std::string>(),
                                  values["adapter"].as<std::string>(),
                                  output,
                                  dtype_name,
                                  {}};
  if (values.count("end-token-id") != 0) {
    request.end_token_id = values["end-token-id"].as<std::int64_t>();
  }
  std::cout << workloads::merge(request) << '\n';
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
