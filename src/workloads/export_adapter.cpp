// An adapter in another form: which model it is of, and what that kind of model makes of it.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "adapters/formats/part_names.hpp"
#include "adapters/formats/peft_parts.hpp"
#include "base/error.hpp"
#include "config/reader.hpp"
#include "config/resolved.hpp"
#include "config/yaml_tree.hpp"
#include "io/file_descriptor.hpp"
#include "workloads/workload_kind.hpp"

namespace lorascale::workloads {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code unknown;
  return !path.empty() && fs::exists(path, unknown);
}

// What the run that an adapter lies in was trained on.
std::optional<fs::path> model_of_run(const fs::path& adapter) {
  auto folder = fs::absolute(adapter).lexically_normal();
  if (!folder.has_filename()) {
    folder = folder.parent_path();  // a slash at the end
  }
  constexpr int kLevels = 3;  // RUN/adapter/lora.safetensors
  for (int level = 0; level < kLevels; ++level, folder = folder.parent_path()) {
    const auto file = folder / "config.yaml";
    if (std::error_code unknown; !fs::is_regular_file(file, unknown)) {
      continue;
    }
    const auto text = io::read_file(file, config::kMaxConfigBytes);
    if (config::is_resolved(text)) {
      return config::read_config_text(text, file.string()).config.model.path;
    }
  }
  return std::nullopt;
}

// What folders of PEFT's name as their base: a part of the model.
std::optional<fs::path> model_of_parts(const fs::path& adapter) {
  for (const auto& part : adapters::peft_parts(adapter)) {
    const fs::path base = adapters::read_peft_adapter(part).base_model;
    if (base.filename() == part.filename()) {
      return base.parent_path();
    }
  }
  return std::nullopt;
}

// A folder of PEFT's for a whole model: others than those of pictures have that form alone.
void refuse_whole_model(const ExportRequest& request) {
  for (const auto& folder : {request.adapter, request.adapter / "adapter"}) {
    if (!is_there(folder / adapters::kPeftConfig)) {
      continue;
    }
    const auto name = folder.filename().string();
    if (std::ranges::find(adapters::kParts, name) != std::end(adapters::kParts)) {
      throw Error(ExitCode::kUsage,
                  folder.string() + " is one part of a LoRA; give the folder that holds it");
    }
    throw Error(ExitCode::kUsage,
                folder.string() +
                    " is an adapter of PEFT's form for one whole model, which is the "
                    "only form there is for models that make no pictures");
  }
}

}  // namespace

std::string export_adapter(ExportRequest request) {
  if (!is_there(request.adapter)) {
    throw_bad_input(request.adapter.string() + " does not exist");
  }
  refuse_whole_model(request);
  if (request.model.empty()) {
    for (const auto& found : {model_of_run(request.adapter), model_of_parts(request.adapter)}) {
      if (found && is_there(*found)) {
        request.model = *found;
        break;
      }
    }
    if (request.model.empty()) {
      throw Error(ExitCode::kUsage,
                  "--model is missing: the base model, whose layers the names in " +
                      request.adapter.string() + " are of");
    }
  } else if (!is_there(request.model)) {
    throw_bad_input(request.model.string() + " does not exist; --model takes the base model");
  }
  config::ModelSection model;
  model.path = request.model.string();
  const auto& kind = workload_kind_of(model);
  if (kind.export_adapter == nullptr) {
    throw Error(ExitCode::kUsage,
                fmt::format("{} is a model of kind {}, whose adapters have PEFT's form alone",
                            model.path, kind.name));
  }
  return kind.export_adapter(request);
}

}  // namespace lorascale::workloads
