#include "cli/plan_headers.hpp"

#include <iostream>

#include "base/units.hpp"
#include "train/recipe_from_config.hpp"
#include "workloads/tools.hpp"

namespace lorascale::cli {

void check_headers(const options::variables_map& values, int ranks) {
  const auto loaded = load_config(values, ranks, config::Purpose::kTraining);
  const auto& config = loaded.config;
  const auto report = workloads::check_headers(config);
  if (report.most_rows > 0) {
    static_cast<void>(
        train::make_recipe(config, report.most_rows, report.tokens_per_row, ranks, nullptr));
  }
  std::cout << "settings  of " << values["config"].as<std::string>() << ", for "
            << counted(ranks, "rank") << "\n"
            << "model     " << (config.model.architecture ? "" : config.model.path + ": ")
            << report.model << ", headers\n"
            << "data      " << config.data.train << ": "
            << (report.data.empty() ? "is prepared when the job starts" : report.data) << "\n";
  for (const auto& note : loaded.notes) {
    std::cout << "note      " << note << "\n";
  }
}

}  // namespace lorascale::cli
