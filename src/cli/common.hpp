// What several verbs share: reading a config with its overrides, and putting a World together.
#pragma once

#include <boost/program_options.hpp>
#include <memory>
#include <string>

#include "cli/verbs.hpp"
#include "comm/mpi_communicator.hpp"
#include "config/run_config.hpp"
#include "config/validate.hpp"
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

struct LoadedConfig {
  config::RunConfig config;
  std::vector<std::string> notes;  // translations and warnings, for the log
};
LoadedConfig load_config(const options::variables_map& values, int world_size,
                         config::Purpose purpose);

// MPI, threads and device of this process, in the order of their construction. Owned by a verb.
class Job {
 public:
  Job();
  // Applies run.threads and run.device, and makes the communicators.
  void configure(const config::RunConfig& config);
  [[nodiscard]] int rank() const { return communicator_->rank(); }
  [[nodiscard]] int size() const { return communicator_->size(); }
  [[nodiscard]] train::World& world() { return *world_; }

 private:
  comm::MpiSession session_;
  comm::NodePlace place_;
  std::unique_ptr<comm::MpiCommunicator> communicator_;
  std::unique_ptr<train::World> world_;
};

}  // namespace lorascale::cli
