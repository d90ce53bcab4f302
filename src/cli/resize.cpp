// resize: an adapter again at a lower rank.
#include "adapters/resize.hpp"

#include <iostream>

#include "base/logging.hpp"
#include "cli/common.hpp"
#include "nn/dtypes.hpp"

namespace lorascale::cli {

ExitCode run_resize(const Arguments& arguments) {
  options::options_description description;
  description.add_options()("adapter", options::value<std::string>()->required(),
                            "the adapter, a PEFT folder or LoRA file,")(
      "rank", options::value<std::int64_t>(), "the most that a layer keeps")(
      "keep", options::value<double>(),
      "the share of each layer's squared singular values that is kept, by the smallest rank that "
      "does")("output", options::value<std::string>(), "new folder or file")(
      "dtype", options::value<std::string>()->default_value("auto"),
      "auto (as stored), bf16, fp16 or fp32");
  options::positional_options_description position;
  position.add("adapter", 1);
  const auto values = parse(arguments, description, position);
  set_up_logging(0);
  if (values.count("rank") + values.count("keep") != 1) {
    throw Error(ExitCode::kUsage, "resize takes one of --rank N and --keep SHARE, and not both");
  }
  adapters::ResizeRequest request{values["adapter"].as<std::string>(), {}, {}, 1, {}};
  if (values.count("rank") != 0) {
    request.rank = values["rank"].as<std::int64_t>();
    if (*request.rank < 1) {
      throw Error(ExitCode::kUsage, "--rank takes a whole number from 1");
    }
  } else {
    request.share = values["keep"].as<double>();
    if (!(request.share > 0 && request.share <= 1)) {
      throw Error(ExitCode::kUsage, "--keep takes a share above 0, such as 0.95, and at most 1");
    }
  }
  const auto type = values["dtype"].as<std::string>();
  request.type = nn::float_type_named(type);
  if (type != "auto" && !request.type) {
    throw Error(ExitCode::kUsage, "--dtype is auto, bf16, fp16 or fp32, not '" + type + "'");
  }
  request.output = new_output(values);
  std::cout << adapters::resize_adapter(request) << '\n';
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
