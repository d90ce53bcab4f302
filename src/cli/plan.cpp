#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "cli/common.hpp"
#include "cli/go_on_options.hpp"
#include "cli/plan_headers.hpp"
#include "coordinator/batch/factorise.hpp"
#include "coordinator/plan_report.hpp"
#include "coordinator/rates/continuation.hpp"
#include "coordinator/rates/scaling.hpp"
#include "coordinator/step_planner.hpp"
#include "io/durable_file.hpp"
#include "train/data_preparation.hpp"
#include "train/leaf_probe.hpp"
#include "train/memory_forecast.hpp"
#include "train/session.hpp"

namespace lorascale::cli {
namespace {

using coordinator::mebibytes;

// Arithmetic that a CPU does in some ten seconds: what a plan may take.
constexpr double kMeasurableOnCpu = 5e11;

// What a leaf takes, measured where that is a matter of seconds. Sets the recipe's leaf where it is
// to be chosen by memory.
struct Measured {
  std::optional<double> peak;  // bytes, on the rank where it is most
  bool by_speed = false;  // the leaf was chosen by what was measured, which is never twice alike
  bool fits = true;
  double budget = 0;  // bytes, on the rank that has the least; 0: no limit is known
};

Measured measure(Job& job, train::Session& session, coordinator::Recipe& recipe, int ranks) {
  const auto& config = session.config;
  auto& world = job.world();
  std::optional<train::FaultInjector> faults;
  std::optional<train::Updater> updater;
  train::together(world.host, [&] {
    faults.emplace(config.faults, job.rank());
    updater.emplace(world, session, *faults);
  });
  // Three forwards' worth: the backward takes two.
  const double operations = 3 * session.model().forward_operations(*data::heaviest_leaf(
                                    session.workload->train(), session.key(), recipe.leaf_size));
  const bool long_on_cpu = session.model().device().is_cpu() && operations > kMeasurableOnCpu;
  if (!config.batch.micro && (!long_on_cpu || train::any_limit(world))) {
    if (const auto table = train::choose_leaf(world, session, *updater, recipe, ranks)) {
      recipe.leaf_size = table->chosen;
      return {table->peak(table->chosen), config.run.reduction == config::Reduction::kFast};
    }
  }
  if (long_on_cpu) {
    return {};
  }
  const auto table =
      train::measure_leaves(world, session, *updater, recipe,
                            {{recipe.leaf_size}, coordinator::LeafAim::kLargest, ranks});
  return {table.peak(recipe.leaf_size), false, table.chosen > 0, table.least_budget()};
}

std::string memory_text(const train::MemoryForecast& memory, const Measured& measured) {
  const std::string shared = memory.weight_holders > 1
                                 ? " of " + mebibytes(memory.weights * memory.weight_holders) +
                                       " shared by " + counted(memory.weight_holders, "rank") +
                                       " of a node"
                                 : std::string();
  const std::string parts = "weights " + mebibytes(memory.weights) + shared + ", trained state " +
                            mebibytes(memory.trained_state) + ", activations of a leaf about " +
                            mebibytes(memory.activations.blocks) + ", logits about " +
                            mebibytes(memory.activations.head);
  if (measured.peak) {
    return "per rank " + mebibytes(*measured.peak) +
           " at the peak, measured on the heaviest leaf: " + parts;
  }
  return "per rank about " + mebibytes(memory.total()) + " at the peak, from shapes alone" +
         (measured.fits ? "" : ", for it does not fit here") + ": " + parts;
}

// What the rule's companions make of the other settings; nothing where none follows the batch.
std::string companions_text(const coordinator::Recipe& recipe, std::int64_t samples) {
  if (!recipe.scale_betas && !recipe.scale_eps && !recipe.scale_weight_decay) {
    return {};
  }
  const auto rates = coordinator::scaled_rates(recipe, samples);
  return fmt::format("companions betas {:.6g} and {:.6g}, eps {:.6g}, weight decay {:.6g}\n",
                     rates.beta1, rates.beta2, rates.eps, rates.weight_decay);
}

}  // namespace

ExitCode run_plan(const Arguments& arguments) {
  auto description = config_options();
  description.add_options()("ranks", options::value<int>(),
                            "plan for this many ranks instead of those started")(
      "headers-only", "check settings and the headers of files; load and measure nothing");
  add_go_on_options(description);  // of the `train` that is checked
  const auto values = parse(arguments, description, config_position());
  const bool goes_on = go_on_of(values).adds_leg() || values.count("into") != 0;
  if (goes_on && values.count("headers-only") == 0) {
    throw Error(
        ExitCode::kUsage,
        "plan tells of a run from its beginning; --more, --cooldown and --into are for train");
  }
  const bool chosen = values.count("ranks") != 0;
  if (chosen && values["ranks"].as<int>() < 1) {
    throw Error(ExitCode::kUsage, "--ranks must be at least 1");
  }
  if (values.count("headers-only") != 0) {
    check_headers(values, chosen ? values["ranks"].as<int>() : 1);
    return ExitCode::kDone;
  }
  Job job;
  const int ranks = chosen ? values["ranks"].as<int>() : job.size();
  const auto loaded = job.configure(values, config::Purpose::kTraining, ranks);
  const auto files = train::prepare_data(job.world(), loaded.config);
  auto session = train::open_session(job.world(), loaded.config, files);
  auto recipe = train::recipe_of(session, ranks);
  const auto measured = measure(job, session, recipe, ranks);
  const coordinator::Coordinator coordinator(recipe, ranks);
  const auto report = coordinator::make_plan_report(recipe, ranks);
  const auto leaves = coordinator::factorise_by_leaf(recipe.global_batch, ranks, recipe.leaf_size);
  const auto usual = coordinator::largest_update(recipe, recipe.global_batch);
  const auto memory = train::forecast_memory(session, recipe.leaf_size);
  if (job.rank() == 0) {
    std::cout << "data      " << session.workload->train().summary() << "\n";
    for (const auto& line : session.workload->plan_lines()) {
      std::cout << line << "\n";
    }
    std::cout << "model     " << session.model().family() << ", " << memory.model_parameters
              << " parameters; trained: " << session.parameters().size() << "\n"
              << "device    " << job.device_text() << "\n"
              << "batch     global " << recipe.global_batch << " = "
              << counted(leaves.leaves, "leaf", "leaves") << " of " << recipe.leaf_size << " on "
              << counted(ranks, "rank") << ", " << leaves.min_leaves_per_rank << " to "
              << leaves.max_leaves_per_rank << " each"
              << (measured.by_speed ? "; batch.micro auto: a run measures again, and may choose "
                                      "another leaf"
                                    : "")
              << "\n"
              << "rate      " << coordinator::explain_rate(recipe, usual) << "\n"
              << companions_text(recipe, usual) << "run       " << report.reason << "\n"
              << "more      " << coordinator::ways_on(recipe, 0) << "\n"
              << "memory    " << memory_text(memory, measured) << "\n";
    for (const auto& note : loaded.notes) {
      std::cout << "note      " << note << "\n";
    }
    for (const auto& advice : report.inputs.value("advice", std::vector<std::string>{})) {
      std::cout << "advice    " << advice << "\n";
    }
    if (!measured.fits) {
      std::cout << "advice    a leaf of " << recipe.leaf_size << " does not fit"
                << (measured.budget > 0 ? " into " + mebibytes(measured.budget) : std::string())
                << ": a run would halve it until it fits; batch.micro auto takes the largest that "
                   "fits, and lorascale find-batch shows all\n";
    }
    nlohmann::json saved = report.inputs;
    saved["memory_bytes"] = {{"weights", memory.weights},
                             {"weight_holders", memory.weight_holders},
                             {"trained_state", memory.trained_state},
                             {"activations", memory.activations.blocks},
                             {"logits", memory.activations.head},
                             {"total", measured.peak.value_or(memory.total())},
                             {"measured", measured.peak.has_value()}};
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
