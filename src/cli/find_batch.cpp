// find-batch: what each leaf takes on each rank, how fast it is, and which is the fastest of those
// that fit.
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "cli/common.hpp"
#include "coordinator/batch/factorise.hpp"
#include "io/durable_file.hpp"
#include "train/data_preparation.hpp"
#include "train/leaf_probe.hpp"
#include "train/vote.hpp"

namespace lorascale::cli {
namespace {

double in_mib(double bytes) {
  return bytes / (1 << 20);
}

std::string limit_text(std::int64_t leaf) {
  return leaf >= coordinator::MemoryLine::kUnlimited ? "any number" : std::to_string(leaf);
}

void print_rows(std::size_t rank, const coordinator::RankMemory& memory) {
  const auto line = memory.line();
  for (const auto& leaf : memory.measured) {
    const double samples = static_cast<double>(leaf.leaf_size);
    const auto formula = in_mib(memory.model + line.per_sample * samples);
    std::cout << fmt::format("{:>4} {:>6}  ", rank, leaf.leaf_size);
    if (!memory.anything_fits()) {
      std::cout << fmt::format("{:>12} {:>12} {:>12}\n", "does not fit", "-", "-");
      continue;
    }
    if (!leaf.fits) {
      std::cout << fmt::format("{:>12} {:>12.1f} {:>12.1f}\n", "does not fit",
                               in_mib(line.peak(leaf.leaf_size)), formula);
      continue;
    }
    std::cout << fmt::format(
        "{:>12.1f} {:>12.1f} {:>12.1f} {:>12} {:>10.1f}\n", in_mib(leaf.peak()),
        in_mib(line.peak(leaf.leaf_size)), formula,
        memory.budget > 0 ? fmt::format("{:.1f}", in_mib(memory.budget - leaf.peak())) : "-",
        leaf.seconds > 0 ? samples / leaf.seconds : 0.0);
  }
}

void print_table(const coordinator::LeafTable& table) {
  std::cout << "peak memory of tensors in MiB: measured, by the line through what was measured, by "
               "(model + per sample x leaf)\n"
            << fmt::format("{:>4} {:>6}  {:>12} {:>12} {:>12} {:>12} {:>10}\n", "rank", "leaf",
                           "measured", "fitted", "formula", "remains", "samples/s");
  for (std::size_t rank = 0; rank < table.ranks.size(); ++rank) {
    print_rows(rank, table.ranks[rank]);
  }
  for (std::size_t rank = 0; rank < table.ranks.size(); ++rank) {
    const auto& memory = table.ranks[rank];
    if (!memory.anything_fits()) {
      std::cout << fmt::format("fit       rank {}: none, for no leaf fits\n", rank);
      continue;
    }
    const auto line = memory.line();
    std::cout << fmt::format("fit       rank {}: {} + {} per sample, at least {}", rank,
                             coordinator::mebibytes(line.fixed),
                             coordinator::mebibytes(line.per_sample),
                             coordinator::mebibytes(line.rest));
    if (memory.budget > 0) {
      std::cout << fmt::format(
          "; a budget of {} is filled by a leaf of {}; (budget - model) / per sample says {}",
          coordinator::mebibytes(memory.budget), limit_text(line.largest_leaf(memory.budget)),
          limit_text(coordinator::formula_leaf(memory.budget, memory.model, line.per_sample)));
    }
    std::cout << "\n";
  }
}

void print_choice(const coordinator::LeafTable& table, const coordinator::Recipe& recipe,
                  const workloads::Words& words) {
  const auto split = coordinator::factorise_by_leaf(
      recipe.global_batch, static_cast<int>(table.ranks.size()), table.chosen);
  const auto& tight = table.ranks[table.tightest()];
  std::cout << fmt::format(
      "choice    batch.micro {}: batch.global {} = {}, accumulation {} "
      "on each of {}",
      table.chosen, recipe.global_batch, counted(split.leaves, "leaf", "leaves"),
      split.min_leaves_per_rank == split.max_leaves_per_rank
          ? std::to_string(split.max_leaves_per_rank)
          : fmt::format("{} or {}", split.min_leaves_per_rank, split.max_leaves_per_rank),
      counted(split.world_size, "rank"));
  if (tight.budget > 0) {
    std::cout << fmt::format("; {} remain on rank {}",
                             coordinator::mebibytes(tight.budget - *table.peak(table.chosen)),
                             table.tightest());
  } else {
    std::cout << "; no limit is known: memory.budget_mib sets one";
  }
  std::cout << fmt::format(
      "\nspeed     the smallest leaf that is as fast as the fastest is chosen; samples/s on all "
      "ranks by leaf\n          {}\n",
      coordinator::speeds_text(table.speeds()));
  if (!words.leaf_matters.empty() && words.leaf_group == 0) {
    std::cout << "note      " << words.leaf_matters
              << ": a run with another batch.micro is another run\n";
  }
}

std::int64_t largest_that_fits(const coordinator::LeafTable& table) {
  std::int64_t largest = 0;
  for (const auto& speed : table.speeds()) {
    largest = std::max(largest, speed.leaf_size);
  }
  return largest;
}

nlohmann::ordered_json to_json(const coordinator::LeafTable& table,
                               const coordinator::Recipe& recipe) {
  nlohmann::ordered_json json = {{"chosen", table.chosen},
                                 {"largest", largest_that_fits(table)},
                                 {"global_batch", recipe.global_batch},
                                 {"world_size", table.ranks.size()},
                                 {"usable", table.usable}};
  for (const auto& speed : table.speeds()) {
    json["speeds"].push_back({{"leaf", speed.leaf_size},
                              {"samples_per_second", speed.samples_per_second},
                              {"noise", speed.noise}});
  }
  for (std::size_t rank = 0; rank < table.ranks.size(); ++rank) {
    const auto& memory = table.ranks[rank];
    const auto line = memory.line();
    nlohmann::ordered_json one = {{"rank", rank},
                                  {"budget_bytes", memory.budget},
                                  {"model_bytes", memory.model},
                                  {"held_bytes", memory.held},
                                  {"leaves", nlohmann::ordered_json::array()}};
    const bool fitted = memory.anything_fits();
    if (fitted) {
      one["fixed_bytes"] = line.fixed;
      one["per_sample_bytes"] = line.per_sample;
      one["rest_bytes"] = line.rest;
    }
    if (fitted && memory.budget > 0) {
      one["largest_by_fit"] = line.largest_leaf(memory.budget);
      one["largest_by_formula"] =
          coordinator::formula_leaf(memory.budget, memory.model, line.per_sample);
    }
    for (const auto& leaf : memory.measured) {
      nlohmann::ordered_json row = {{"leaf", leaf.leaf_size}, {"fits", leaf.fits}};
      if (fitted) {
        row["fitted_bytes"] = line.peak(leaf.leaf_size);
        row["formula_bytes"] = memory.model + line.per_sample * static_cast<double>(leaf.leaf_size);
      }
      if (leaf.fits) {
        row["measured_bytes"] = leaf.peak();
        row["seconds"] = leaf.seconds;
      }
      one["leaves"].push_back(std::move(row));
    }
    json["ranks"].push_back(std::move(one));
  }
  return json;
}

}  // namespace

ExitCode run_find_batch(const Arguments& arguments) {
  const auto values = parse(arguments, config_options(), config_position());
  Job job;
  const auto loaded = job.configure(values, config::Purpose::kTraining);
  auto& world = job.world();
  const auto files = train::prepare_data(world, loaded.config);
  auto session = train::open_session(world, loaded.config, files);
  std::optional<train::FaultInjector> faults;
  std::optional<train::Updater> updater;
  train::together(world.host, [&] {
    faults.emplace(loaded.config.faults, job.rank());
    updater.emplace(world, session, *faults);
  });
  const auto table = train::measure_leaves(world, session, *updater, session.recipe,
                                           {train::auto_leaves(session, session.recipe, job.size()),
                                            coordinator::LeafAim::kAll, job.size()});
  train::root_alone(world.host, [&] {
    print_table(table);
    if (table.chosen > 0) {
      print_choice(table, session.recipe, session.workload->words());
    }
    std::cout << std::flush;
    const std::filesystem::path folder = loaded.config.run.output_dir;
    io::create_folders(folder);
    const auto text = to_json(table, session.recipe).dump(2) + "\n";
    io::write_file_atomically(folder / "find-batch.json", std::string_view(text));
    std::cout << "saved     " << (folder / "find-batch.json").string() << std::endl;
  });
  train::require_leaf(world, session, table);
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
