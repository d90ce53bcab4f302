#include "cli/common.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <sched.h>
#include <spdlog/spdlog.h>

#include <filesystem>

#include "base/logging.hpp"
#include "config/reader.hpp"

namespace lorascale::cli {
namespace {

constexpr double kStartDeadlineSeconds = 60;

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

bool load_cuda() {
  // The CUDA half of libtorch takes a second to load: only where a GPU may be used.
  return dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr && at::hasCUDA() &&
         at::detail::getCUDAHooks().getNumGPUs() > 0;
}

at::Device choose_device(const std::string& wanted, const comm::NodePlace& place) {
  if (wanted == "cpu" || (wanted == "auto" && !std::filesystem::exists("/dev/nvidia0"))) {
    return {at::kCPU};
  }
  if (!load_cuda()) {
    if (wanted == "auto") {
      return {at::kCPU};
    }
    throw_bad_config(
        "run.device is cuda, but no GPU can be used here; check nvidia-smi, or set run.device: "
        "cpu");
  }
  const auto gpus = at::detail::getCUDAHooks().getNumGPUs();
  const bool share = std::getenv("LORASCALE_SHARE_GPUS") != nullptr;
  if (place.local_rank >= gpus && !share) {
    throw_bad_config("rank " + std::to_string(place.local_rank) + " of " + place.host +
                     " has no GPU of its own: the node shows " + std::to_string(gpus) +
                     "; start at most " + std::to_string(gpus) + " ranks on it");
  }
  return {at::kCUDA, static_cast<at::DeviceIndex>(place.local_rank % gpus)};
}

}  // namespace

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
  } catch (const options::error& error) {
    throw Error(ExitCode::kUsage, std::string(error.what()) + " (see lorascale --help)");
  }
  return values;
}

options::options_description config_options() {
  options::options_description description;
  description.add_options()("config", options::value<std::string>()->required(),
                            "configuration file")(
      "set", options::value<std::vector<std::string>>()->composing(),
      "key.path=value, over the file");
  return description;
}

options::positional_options_description config_position() {
  options::positional_options_description position;
  position.add("config", 1);
  return position;
}

LoadedConfig load_config(const options::variables_map& values, int world_size,
                         config::Purpose purpose) {
  config::ReadOptions read;
  read.world_size = world_size;
  if (values.count("set") != 0) {
    read.overrides = values["set"].as<std::vector<std::string>>();
  }
  auto result = config::read_config_file(values["config"].as<std::string>(), read);
  LoadedConfig loaded{std::move(result.config), std::move(result.translations)};
  const auto warnings = config::validate(loaded.config, purpose);
  loaded.notes.insert(loaded.notes.end(), warnings.begin(), warnings.end());
  return loaded;
}

Job::Job()
    : place_(comm::node_place()),
      communicator_(std::make_unique<comm::MpiCommunicator>(kStartDeadlineSeconds)) {
  set_up_logging(communicator_->rank());
}

void Job::configure(const config::RunConfig& config) {
  const auto threads = config.run.threads > 0 ? static_cast<int>(config.run.threads)
                                              : std::max(1, available_cores() / place_.local_size);
  at::set_num_threads(threads);
  communicator_ = std::make_unique<comm::MpiCommunicator>(config.run.deadline_seconds);
  const at::Device device = choose_device(config.run.device, place_);
  world_ = std::make_unique<train::World>(
      train::World{*communicator_, *communicator_, device, place_.host});
  if (rank() == 0) {
    spdlog::info("{} rank(s), {} thread(s) each, device {}", size(), threads, device.str());
  }
}

}  // namespace lorascale::cli
