#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/common.hpp"
#include "config/reader.hpp"
#include "config/resolved.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/rates/scaling.hpp"
#include "io/durable_file.hpp"
#include "io/run_lock.hpp"
#include "train/data_preparation.hpp"
#include "train/range_test.hpp"
#include "train/range_test_plot.hpp"
#include "train/session.hpp"
#include "train/vote.hpp"

namespace lorascale::cli {
namespace {

using coordinator::LrVerdict;
namespace fs = std::filesystem;

// Refuses a range that makes no test before anything is opened.
train::RangeTestSettings settings_from(const options::variables_map& values) {
  train::RangeTestSettings settings;
  settings.from = values["from"].as<double>();
  settings.to = values["to"].as<double>();
  if (values.count("updates") != 0) {
    settings.updates = values["updates"].as<std::int64_t>();
  }
  coordinator::LrFinderSettings checked;
  checked.from = settings.from;
  checked.to = settings.to;
  checked.updates = settings.updates.value_or(checked.updates);
  try {
    const coordinator::LrFinder finder(checked);
  } catch (const Error& error) {
    throw Error(ExitCode::kUsage, std::string("find-lr: ") + error.what());
  }
  return settings;
}

// The folder may hold a run of this configuration; its rate is what is looked for, and may differ.
void require_own_folder(const fs::path& folder, config::RunConfig now) {
  const auto saved = folder / "config.yaml";
  if (!fs::exists(saved)) {
    return;
  }
  auto before = config::read_config_file(saved.string(), {}).config;
  before.optimizer.lr = now.optimizer.lr;
  config::keep_first_choices(before, now);  // also of a run that came to no checkpoint
  const auto changed = config::differences(before, now, config::Scope::kFixedOnResume);
  if (!changed.empty()) {
    throw_bad_config(folder.string() + " belongs to another run: " + config::to_string(changed) +
                     "; choose another run.output_dir");
  }
}

std::string curve_csv(const train::RangeTest& test) {
  std::string csv = "lr,loss,smoothed_loss\n";
  for (const auto& point : test.curve) {
    csv += fmt::format("{},{},{}\n", point.lr, point.loss, point.smoothed);
  }
  return csv;
}

const char* name_of(LrVerdict verdict) {
  switch (verdict) {
    case LrVerdict::kBracket:
      return "bracket";
    case LrVerdict::kOpenAbove:
      return "open_above";
    case LrVerdict::kNoDescent:
      return "no_descent";
  }
  return "";
}

nlohmann::ordered_json result_json(const train::RangeTest& test,
                                   const coordinator::Recipe& recipe) {
  const auto& range = test.range;
  const auto three = [&](double divisor) {
    return nlohmann::ordered_json{{"low", range.low / divisor},
                                  {"suggested", range.suggestion / divisor},
                                  {"high", range.high / divisor}};
  };
  return {{"verdict", name_of(range.verdict)},
          {"reason", range.reason},
          {"rate_at_batch", three(1)},
          {"optimizer.lr", three(test.factor)},
          {"batch", test.batch},
          {"batch.reference", recipe.reference_batch},
          {"scale.rule", std::string(coordinator::name_of(recipe.rule))},
          {"factor", test.factor},
          {"from", test.settings.from},
          {"to", test.settings.to},
          {"updates", test.updates},
          {"updates_planned", test.settings.updates},
          {"samples", test.samples},
          {"micro_batch", test.leaf_size},
          {"steepest", range.steepest},
          {"slope", range.slope},
          {"fall", range.fall},
          {"scatter", range.scatter},
          {"state_before", test.state_before},
          {"state_after", test.state_after}};
}

void print_table(const train::RangeTest& test, const coordinator::Recipe& recipe) {
  constexpr std::size_t kRows = 20;
  std::cout << fmt::format("{:>10}  {:>10}  {:>10}\n", "lr", "loss", "smoothed");
  const std::size_t stride = std::max<std::size_t>(1, test.curve.size() / kRows);
  for (std::size_t i = 0; i < test.curve.size(); i += stride) {
    const auto& point = test.curve[i];
    const bool inside = point.lr >= test.range.low && point.lr <= test.range.high;
    std::cout << fmt::format("{:>10.3g}  {:>10.4f}  {:>10.4f}{}\n", point.lr, point.loss,
                             point.smoothed, inside ? "  |" : "");
  }
  const auto row = [&](const std::string& name, double divisor, const std::string& remark) {
    std::cout << fmt::format("{:<13} {:>9.3g}  {:>9.3g}  {:>9.3g}  {}\n", name,
                             test.range.low / divisor, test.range.suggestion / divisor,
                             test.range.high / divisor, remark);
  };
  std::cout << fmt::format("\n{:<13} {:>9}  {:>9}  {:>9}\n", "", "low", "suggested", "high");
  row("rate", 1, fmt::format("at a batch of {}", test.batch));
  row("optimizer.lr", test.factor,
      fmt::format("for the configuration: the rate divided by {:.6g}, which scale.rule {} makes of "
                  "batch {} / reference {}",
                  test.factor, coordinator::name_of(recipe.rule), test.batch,
                  recipe.reference_batch));
  std::cout << "\nwhy    " << test.range.reason << "\n";
}

void save(const fs::path& folder, const train::RangeTest& test, const coordinator::Recipe& recipe) {
  io::create_folders(folder);
  io::write_file_atomically(folder / "curve.csv", std::string_view(curve_csv(test)));
  io::write_file_atomically(folder / "curve.svg", std::string_view(train::range_test_svg(test)));
  io::write_file_atomically(folder / "result.json",
                            std::string_view(result_json(test, recipe).dump(2) + "\n"));
}

}  // namespace

ExitCode run_find_lr(const Arguments& arguments) {
  auto description = config_options();
  description.add_options()("from", options::value<double>()->default_value(1e-6), "lowest rate")(
      "to", options::value<double>()->default_value(1), "highest rate")(
      "updates", options::value<std::int64_t>(), "from the one to the other");
  const auto values = parse(arguments, description, config_position());
  const auto settings = settings_from(values);
  take_stop_requests();
  Job job;
  const auto loaded = job.configure(values, config::Purpose::kTraining);
  auto& host = job.world().host;
  const fs::path run_folder = loaded.config.run.output_dir;
  const fs::path folder = run_folder / "find-lr";
  std::optional<io::RunLock> lock;
  train::root_alone(host, [&] {
    lock.emplace(run_folder);
    require_own_folder(run_folder, loaded.config);
  });
  const auto files = train::prepare_data(job.world(), loaded.config);
  auto session = train::open_session(job.world(), loaded.config, files);
  const auto test = train::run_range_test(job.world(), session, settings);
  if (test.stopped) {
    if (job.rank() == 0) {
      spdlog::info("stopped on request after update {} of {}; nothing is kept, run it again",
                   test.updates, test.settings.updates);
    }
    return ExitCode::kStopped;
  }
  train::root_alone(host, [&] {
    save(folder, test, session.recipe);
    if (test.range.verdict == LrVerdict::kNoDescent) {
      throw_bad_config("no rate in the range lowers the loss; " + test.range.reason +
                       " (find-lr's --updates, --from and --to); the curve is in " +
                       folder.string());
    }
    print_table(test, session.recipe);
    const double epochs =
        static_cast<double>(test.samples) / static_cast<double>(session.recipe.samples_per_epoch);
    if (epochs > 1) {
      std::cout << fmt::format(
          "note   the test went through the data {:.1f} times; losses of samples seen before are "
          "lower\n",
          epochs);
    }
    std::cout << "saved  " << (folder / "curve.svg").string() << ", curve.csv, result.json\n";
  });
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
