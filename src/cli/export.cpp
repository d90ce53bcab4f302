// export: an adapter in the form of another program.
#include <algorithm>
#include <array>
#include <iostream>

#include "base/logging.hpp"
#include "cli/common.hpp"
#include "workloads/tools.hpp"

namespace lorascale::cli {

ExitCode run_export(const Arguments& arguments) {
  options::options_description description;
  description.add_options()("adapter", options::value<std::string>()->required(),
                            "the adapter, a LoRA file, a folder or a run,")(
      "to", options::value<std::string>(), "peft, kohya or diffusers")(
      "output", options::value<std::string>(), "new folder or file")(
      "model", options::value<std::string>()->default_value(""),
      "base model; default: that of the run, or what the adapter names");
  options::positional_options_description position;
  position.add("adapter", 1);
  const auto values = parse(arguments, description, position);
  set_up_logging(0);
  constexpr std::array<std::string_view, 3> kForms = {"peft", "kohya", "diffusers"};
  const auto form = values.count("to") != 0 ? values["to"].as<std::string>() : "";
  if (std::ranges::find(kForms, form) == kForms.end()) {
    throw Error(ExitCode::kUsage,
                "--to is peft, kohya or diffusers" + (form.empty() ? "" : ", not '" + form + "'"));
  }
  std::cout << workloads::export_adapter({values["adapter"].as<std::string>(), form,
                                          new_output(values), values["model"].as<std::string>()})
            << '\n';
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
