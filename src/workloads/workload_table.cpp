// The kinds of workloads, a row each.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.hpp"
#include "config/options.hpp"
#include "io/hdf5_file.hpp"
#include "prepare/source_files.hpp"
#include "workloads/diffusion/diffusion.hpp"
#include "workloads/language/language.hpp"
#include "workloads/vision/vision.hpp"
#include "workloads/workload_kind.hpp"

namespace lorascale::workloads {

std::span<const WorkloadKind> workload_kinds() {
  // The first that takes a model has it.
  static const std::array kinds = {vision::kVision, diffusion::kDiffusion, language::kLanguage};
  return kinds;
}

const WorkloadKind& workload_kind_of(const config::ModelSection& model) {
  const auto kinds = workload_kinds();
  const auto found =
      std::ranges::find_if(kinds, [&](const WorkloadKind& kind) { return kind.takes(model); });
  LS_ASSERT(found != kinds.end());  // the last takes all
  return *found;
}

std::unique_ptr<Workload> open_workload(config::RunConfig& config, const prepare::DataFiles& files,
                                        const models::WeightPlace& place) {
  return workload_kind_of(config.model).open(config, files, place);
}

void take_defaults(const std::set<std::string>& given, config::RunConfig& config) {
  if (const auto& kind = workload_kind_of(config.model); kind.take_defaults != nullptr) {
    kind.take_defaults(given, config);
  }
}

void require_data_files(const config::RunConfig& config) {
  const auto& kind = workload_kind_of(config.model);
  if (kind.data_maker.empty()) {
    return;
  }
  const auto require_made = [&](const std::string& setting, const std::string& path) {
    if (!prepare::is_data_file(path)) {
      throw_bad_input(fmt::format("{}: {} is no data file of a {} model; make one with {}", setting,
                                  path, kind.name, kind.data_maker));
    }
  };
  require_made("data.train", config.data.train);
  if (config.data.validation) {
    require_made("data.validation", *config.data.validation);
  }
}

BaseModel read_base_model(const config::ModelSection& model) {
  const auto& kind = workload_kind_of(model);
  return kind.read_base == nullptr ? BaseModel{} : kind.read_base(model);
}

std::vector<std::string> unused_settings(const config::RunConfig& config) {
  return config::idle_options(config, workload_kind_of(config.model).name);
}

adapters::AdaptedModel adapted_model(models::Model& model, const config::RunConfig& config) {
  adapters::AdaptedModel adapted;
  adapted.sites = model.sites();
  adapted.slots = model.parameter_slots();
  adapted.file_slots = model.file_slots();
  adapted.without_adapter = model.parts_without_site();
  adapted.base = config.model.path;
  if (const auto& kind = workload_kind_of(config.model); kind.token_tables != nullptr) {
    adapted.token_tables = kind.token_tables(model, config);
  }
  return adapted;
}

bool uses_setting(const config::ModelSection& model, std::string_view path) {
  return config::means_something(*config::find_option(path), workload_kind_of(model).name);
}

HeaderReport check_headers(const config::RunConfig& config) {
  require_data_files(config);
  return workload_kind_of(config.model).check_headers(config);
}

std::string generate(const config::RunConfig& config, at::Device device,
                     const GenerateRequest& request) {
  const auto& kind = workload_kind_of(config.model);
  if (kind.generate == nullptr) {
    const auto& model = config.model;
    throw Error(
        ExitCode::kUsage,
        fmt::format("{} writes no text: it is a model of kind {}",
                    model.architecture ? "model.architecture " + *model.architecture : model.path,
                    kind.name));
  }
  return kind.generate(config, device, request);
}

std::string merge(const MergeRequest& request) {
  if (!std::filesystem::exists(request.model)) {
    throw_bad_input(request.model.string() + " does not exist; --model takes the base model");
  }
  config::ModelSection model;
  model.path = request.model.string();
  const auto& kind = workload_kind_of(model);
  if (kind.merge == nullptr) {
    throw Error(ExitCode::kUsage,
                fmt::format("{} takes no adapter to merge: it is a model of kind {}", model.path,
                            kind.name));
  }
  return kind.merge(request);
}

std::string describe_data(const std::filesystem::path& file) {
  const auto format = io::Hdf5File(file).text_attribute("format").value_or("");
  const auto kinds = workload_kinds();
  const auto found = std::ranges::find(kinds, format, &WorkloadKind::data_format);
  // What is wrong with a file of no known format, the last kind, which takes all, says.
  return (found != kinds.end() ? *found : kinds.back()).describe_data(file);
}

}  // namespace lorascale::workloads
