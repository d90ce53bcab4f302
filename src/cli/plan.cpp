#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/common.hpp"
#include "coordinator/factorise.hpp"
#include "coordinator/plan_report.hpp"
#include "io/durable_file.hpp"
#include "train/memory_forecast.hpp"
#include "train/session.hpp"

namespace lorascale::cli {
namespace {

std::string mebibytes(double bytes) {
  return fmt::format("{:.0f} MiB", bytes / (1 << 20));
}

}  // namespace

ExitCode run_plan(const Arguments& arguments) {
  auto description = config_options();
  description.add_options()("ranks", options::value<int>(),
                            "plan for this many ranks instead of those started");
  const auto values = parse(arguments, description, config_position());
  Job job;
  const int ranks = values.count("ranks") != 0 ? values["ranks"].as<int>() : job.size();
  if (ranks < 1) {
    throw Error(ExitCode::kUsage, "--ranks must be at least 1");
  }
  const auto loaded = job.configure(values, config::Purpose::kTraining, ranks);
  const auto session = train::open_session(job.world(), loaded.config);
  auto recipe = train::make_recipe(loaded.config, session.train->rows(),
                                   session.train->tokens_per_row(), ranks, nullptr);
  recipe.trainable_parameters = session.recipe.trainable_parameters;
  recipe.targets_per_epoch = session.recipe.targets_per_epoch;
  const coordinator::Coordinator coordinator(recipe, ranks);
  const auto report = coordinator::make_plan_report(recipe, ranks);
  const auto leaves = coordinator::factorise_by_leaf(recipe.global_batch, ranks, recipe.leaf_size);
  const auto memory =
      train::forecast_memory(session, recipe.leaf_size, loaded.config.data.sequence_length);
  if (job.rank() == 0) {
    std::cout << "data      " << session.train->summary() << "\n"
              << "model     " << session.model->config().model_type << ", "
              << memory.model_parameters
              << " parameters; trained: " << session.trainable.parameters->size() << "\n"
              << "batch     global " << recipe.global_batch << " = " << leaves.leaves
              << " leaves of " << recipe.leaf_size << " on " << ranks << " rank(s), "
              << leaves.min_leaves_per_rank << " to " << leaves.max_leaves_per_rank << " each\n"
              << "rate      " << coordinator::explain_rate(recipe, recipe.global_batch) << "\n"
              << "run       " << report.reason << "\n"
              << "memory    per rank about " << mebibytes(memory.total()) << ": weights "
              << mebibytes(memory.weights) << ", trained state " << mebibytes(memory.trained_state)
              << ", activations of a leaf " << mebibytes(memory.activations) << ", logits "
              << mebibytes(memory.logits) << "\n";
    for (const auto& note : loaded.notes) {
      std::cout << "note      " << note << "\n";
    }
    for (const auto& advice : report.inputs.value("advice", std::vector<std::string>{})) {
      std::cout << "advice    " << advice << "\n";
    }
    nlohmann::json saved = report.inputs;
    saved["memory_bytes"] = {{"weights", memory.weights},
                             {"trained_state", memory.trained_state},
                             {"activations", memory.activations},
                             {"logits", memory.logits},
                             {"total", memory.total()}};
    const std::filesystem::path folder = loaded.config.run.output_dir;
    if (std::filesystem::exists(folder / "config.yaml")) {
      std::cout << "not saved: " << folder.string() << " holds a run already\n";
    } else {
      io::create_folders(folder);
      io::write_file_atomically(folder / "plan.json", std::string_view(saved.dump(2) + "\n"));
      std::cout << "saved     " << (folder / "plan.json").string() << "\n";
    }
  }
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
