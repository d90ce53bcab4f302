// What several verbs share: reading a config with its overrides, and putting a World together.
#pragma once

#include <boost/program_options.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "cli/verbs.hpp"
#include "comm/mpi_session.hpp"
#include "config/run_config.hpp"
#include "config/validate.hpp"
#include "train/watchdog.hpp"
#include "train/world.hpp"

namespace lorascale::cli {

namespace options = boost::program_options;

// Parses `arguments`; anything unknown is Error(kUsage).
options::variables_map parse(const Arguments& arguments,
                             const options::options_description& description,
                             const options::positional_options_description& positional);

// Options that every verb with a config takes: CONFIG.yaml and --set.
options::options_description config_options();
options::positional_options_description config_position();

// Of a verb that writes an adapter: what --output names. Error(kUsage) where it is missing,
// Error(kCannotWrite) where something is there.
std::filesystem::path new_output(const options::variables_map& values);

// From here on a request to stop is kept, whatever the verb is at: it ends after one update.
void take_stop_requests();

struct LoadedConfig {
  config::RunConfig config;
  std::vector<std::string> notes;  // translations and warnings, for the log
};

// Reads the config of `values` with its overrides, for a world of this size. Error(kBadConfig)
// names every problem.
LoadedConfig load_config(const options::variables_map& values, int world_size,
                         config::Purpose purpose);

// Watchdog, MPI, threads and device of this process, in the order of their construction. Owned by a
// verb.
class Job {
 public:
  Job();
  // Reads the config on every rank, and applies run.threads, run.device and run.deadline_seconds.
  // `ranks` replaces the number of ranks started, for a plan.
  LoadedConfig configure(const options::variables_map& values, config::Purpose purpose,
                         std::optional<int> ranks = std::nullopt);
  [[nodiscard]] int rank() const { return host_->rank(); }
  [[nodiscard]] int size() const { return host_->size(); }
  [[nodiscard]] train::World& world() { return *world_; }
  [[nodiscard]] train::Watchdog& watchdog() { return watchdog_; }

  // Where this rank computes, in words: "cuda:0", or "cpu" with the instructions it uses.
  const std::string& device_text() const { return device_text_; }

 private:
  at::Device agreed_device(const config::RunSection& run);

  train::Watchdog watchdog_;
  comm::MpiSession session_;
  comm::NodePlace place_;
  std::unique_ptr<comm::Communicator> host_;
  std::unique_ptr<comm::Communicator> device_;  // where gradients live on GPUs of several ranks
  std::unique_ptr<train::World> world_;
  std::string device_text_;
};

}  // namespace lorascale::cli
