#include "cli/common.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <sched.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "adapters/adapter.hpp"
#include "base/logging.hpp"
#include "cli/device.hpp"
#include "comm/launcher.hpp"
#include "comm/mpi_communicator.hpp"
#include "config/reader.hpp"
#include "config/resolved.hpp"
#include "config/yaml_tree.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/file_descriptor.hpp"
#include "train/cpu_features.hpp"
#include "train/device_choice.hpp"
#include "train/library_settings.hpp"
#include "train/signals.hpp"
#include "train/tensor_memory.hpp"
#include "train/vote.hpp"
#include "workloads/workload.hpp"

namespace lorascale::cli {
namespace {

constexpr double kStartDeadlineSeconds = 60;
constexpr double kDeviceDeadlineSeconds = 1000;

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

// The configuration that the run in a folder was last started with; empty where there is none that
// has come to a checkpoint.
std::string config_of_run(const std::filesystem::path& folder) {
  const auto file = folder / "config.yaml";
  std::error_code ignored;
  return std::filesystem::is_regular_file(file, ignored) &&
                 !io::list_checkpoints(folder / "checkpoints").empty()
             ? io::read_file(file, config::kMaxConfigBytes)
             : std::string();
}

// A run that goes on keeps what its first start made of the ranks it had. Rank 0's folder says.
void keep_first_choices(comm::Communicator& host, const options::variables_map& values,
                        LoadedConfig& loaded) {
  std::string text;
  train::together(host, [&] {
    if (host.rank() == 0 && loaded.config.run.resume == config::Resume::kAuto) {
      if (values.count("into") != 0) {
        text = config_of_run(values["into"].as<std::string>());
      }
      text = text.empty() ? config_of_run(loaded.config.run.output_dir) : text;
    }
  });
  host.broadcast_from_root(text);
  train::together(host, [&] {
    if (!text.empty()) {
      const auto saved = config::read_config_text(text, "config.yaml of the run").config;
      const auto lines = config::keep_first_choices(saved, loaded.config);
      loaded.notes.insert(loaded.notes.end(), lines.begin(), lines.end());
    }
  });
}

// Every rank reads the file itself, and on another node it may be another file.
void require_same_settings(comm::Communicator& host, const config::RunConfig& mine) {
  std::string text = config::write_resolved(mine);
  host.broadcast_from_root(text);
  train::together(host, [&] {
    const auto roots = config::read_config_text(text, "the configuration of rank 0").config;
    const auto found = config::differences(roots, mine);
    if (!found.empty()) {
      throw_bad_config("the configuration is not that of rank 0 (" + config::to_string(found) +
                       "); give all ranks the same file and the same --set");
    }
  });
}

}  // namespace

LoadedConfig load_config(const options::variables_map& values, int world_size,
                         config::Purpose purpose) {
  config::ReadOptions read;
  read.world_size = world_size;
  if (values.count("set") != 0) {
    read.overrides = values["set"].as<std::vector<std::string>>();
  }
  config::Problems problems;
  auto result = config::read_config_file(values["config"].as<std::string>(), read, problems);
  LoadedConfig loaded{std::move(result.config), std::move(result.translations)};
  if (problems.count() == 0) {
    workloads::take_defaults(result.given, loaded.config);
  }
  if (purpose == config::Purpose::kTraining && problems.count() == 0) {
    if (const auto taken = adapters::take_adapter_settings(result.given, &loaded.config)) {
      loaded.notes.push_back(*taken);
    }
  }
  const auto warnings = config::validate(loaded.config, purpose, problems);
  problems.throw_if_any();
  loaded.notes.insert(loaded.notes.end(), warnings.begin(), warnings.end());
  return loaded;
}

options::variables_map parse(const Arguments& arguments,
                             const options::options_description& description,
                             const options::positional_options_description& positional) {
  options::variables_map values;
  try {
    options::store(options::command_line_parser(arguments)
                       .options(description)
                       .positional(positional)
                       .style(options::command_line_style::unix_style &
                              ~options::command_line_style::allow_guessing)
                       .run(),
                   values);
    options::notify(values);
  } catch (const options::required_option& error) {
    if (positional.max_total_count() == 0) {
      throw Error(ExitCode::kUsage, std::string(error.what()) + " (see lorascale --help)");
    }
    // The one argument without a name.
    const auto& missing = description.find(positional.name_for_position(0), /*approx=*/false);
    throw Error(ExitCode::kUsage, missing.description() +
                                      " is missing; name it after the verb (see lorascale --help)");
  } catch (const options::error& error) {
    throw Error(ExitCode::kUsage, std::string(error.what()) + " (see lorascale --help)");
  }
  return values;
}

options::options_description config_options() {
  options::options_description description;
  description.add_options()("config", options::value<std::string>()->required(),
                            "the configuration, a YAML file,")(
      "set", options::value<std::vector<std::string>>()->composing(),
      "key.path=value, over the file");
  return description;
}

options::positional_options_description config_position() {
  options::positional_options_description position;
  position.add("config", 1);
  return position;
}

std::filesystem::path new_output(const options::variables_map& values) {
  if (values.count("output") == 0) {
    throw Error(ExitCode::kUsage, "--output is missing: the new folder, or the new .safetensors");
  }
  std::filesystem::path output = values["output"].as<std::string>();
  if (std::error_code unknown; std::filesystem::exists(output, unknown)) {
    throw Error(ExitCode::kCannotWrite, output.string() + " is there; choose another --output");
  }
  return output;
}

void take_stop_requests() {
  const auto facts = comm::read_launcher(std::getenv);
  train::install_stop_handlers(facts.size.value_or(1) == 1 ? train::Listener::kAlone
                                                           : train::Listener::kOneOfSeveral);
}

Job::Job() : watchdog_(kStartDeadlineSeconds), place_(comm::node_place()) {
  if (const auto facts = comm::read_launcher(std::getenv); facts.size) {
    comm::check_launcher(facts, comm::world_rank(), comm::world_size());
  }
  host_ = std::make_unique<comm::MpiCommunicator>(kStartDeadlineSeconds);
  set_up_logging(rank());
  watchdog_.set_name("rank " + std::to_string(rank()) + " (" + place_.host + ")");
}

// Ranks that load CUDA's libraries from cold storage may take minutes longer than others.
at::Device Job::agreed_device(const config::RunSection& run) {
  train::set_up_libraries(run.reduction == config::Reduction::kExact);
  const auto system = train::gpu_system();
  const bool seems_there = run.device == config::Device::kCuda || !system->sign_of_gpu().empty();
  std::array<std::int64_t, 1> loads = {run.device != config::Device::kCpu && seems_there ? 1 : 0};
  host_->all_reduce(std::span(loads), comm::ReduceOp::kMax);
  const double deadline = host_->deadline_seconds();
  host_->set_deadline(loads[0] != 0 ? kDeviceDeadlineSeconds : deadline);
  train::DeviceChoice choice;
  const auto start = std::chrono::steady_clock::now();
  train::together(*host_, [&] { choice = train::choose_device(run.device, place_, *system); });
  train::agree_on_kind(*host_, choice, place_.host);
  host_->set_deadline(deadline);
  if (rank() == 0 && !choice.device.is_cpu()) {
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    spdlog::info("{}; all ranks had loaded CUDA's libraries after {:.1f} s", choice.driver,
                 taken.count());
  }
  return choice.device;
}

LoadedConfig Job::configure(const options::variables_map& values, config::Purpose purpose,
                            std::optional<int> ranks) {
  LoadedConfig loaded;
  train::together(*host_, [&] { loaded = load_config(values, ranks.value_or(size()), purpose); });
  if (purpose == config::Purpose::kTraining) {
    keep_first_choices(*host_, values, loaded);
  }
  require_same_settings(*host_, loaded.config);
  const at::Device place = agreed_device(loaded.config.run);
  const auto& run = loaded.config.run;
  const auto threads = run.threads > 0 ? static_cast<int>(run.threads)
                                       : std::max(1, available_cores() / place_.local_size);
  at::set_num_threads(threads);
  host_->set_deadline(run.deadline_seconds);
  watchdog_.set_deadline(run.deadline_seconds);
  train::count_cpu_tensors();
  train::limit_tensors(place, loaded.config.memory.budget_mib << 20);
  if (place.is_cuda()) {
    if (loaded.config.memory.budget_mib > 0) {
      loaded.notes.emplace_back(
          "memory.budget_mib limits tensors on CPUs; on a GPU the card itself is the limit");
    }
    require_distinct_gpus(*host_, place);
    device_ = gpu_communicator(*host_, place, run.deadline_seconds);
  }
  world_ = std::make_unique<train::World>(
      train::World{*host_, device_ ? *device_ : *host_, place, place_.host, place_});
  device_text_ = place.is_cpu()
                     ? "cpu: " + train::describe(train::features_of_this_cpu(std::getenv))
                     : place.str();
  if (rank() == 0) {
    spdlog::info("{} rank(s), {} thread(s) each, device {}", size(), threads, device_text_);
  }
  return loaded;
}

}  // namespace lorascale::cli
