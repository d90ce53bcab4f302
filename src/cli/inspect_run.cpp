#include "cli/inspect_run.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <deque>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "adapters/adapter.hpp"
#include "base/units.hpp"
#include "config/options.hpp"
#include "config/reader.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/strict_json.hpp"
#include "workloads/tools.hpp"

namespace lorascale::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kShownUpdates = 5;

void say(const char* what, const std::string& text) {
  std::cout << fmt::format("{:<12}{}\n", what, text);
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

void show_status(const fs::path& folder) {
  const fs::path file = folder / "status.json";
  if (!is_file(file)) {
    say("status", "none: the run has saved nothing yet");
    return;
  }
  const auto json = io::read_json_file(file);
  const io::JsonObject status(json, file.string());
  const auto outcome = status.text("outcome");
  // A message may have lines of its own.
  std::string message = status.text_or("message", "");
  for (auto at = message.find('\n'); at != std::string::npos; at = message.find('\n', at)) {
    message.replace(at, 1, "; ");
  }
  say("status",
      fmt::format("{} at step {}{}: {}", outcome, status.integer("step"),
                  outcome == "running" ? std::string(" (or ended without a word)")
                                       : fmt::format(", exit code {}", status.integer("exit_code")),
                  message));
}

void show_config(const fs::path& folder) {
  const auto config = config::read_config_file(folder / "config.yaml").config;
  const auto value = [&](const char* path) { return config::find_option(path)->write(config); };
  const auto dtype = value("model.dtype");
  say("model", value(config.model.architecture ? "model.architecture" : "model.path") +
                   (dtype == "auto" ? "" : ", " + dtype));
  const auto word = fmt::format("the word {} in {}", value("adapter.token.word"),
                                counted(config.adapter.token.vectors, "vector"));
  say("trained", config.adapter.trains_base()     ? "all weights"
                 : config.adapter.type == "token" ? word
                 : config.adapter.type == "ia3"
                     ? fmt::format("IA3, targets {}", value("adapter.targets"))
                     : fmt::format("LoRA rank {}, alpha {}, targets {}{}", value("adapter.rank"),
                                   value("adapter.alpha"), value("adapter.targets"),
                                   config.adapter.token.word ? ", and " + word : ""));
  const bool tokens = workloads::uses_setting(config.model, "data.sequence_length");
  const auto split = config.data.prepare.validation_fraction;
  const auto validation = config.data.validation ? value("data.validation")
                          : split > 0            ? fmt::format("{:g} % of it", 100 * split)
                                                 : std::string("none");
  say("data", fmt::format("{}, validation {}{}", value("data.train"), validation,
                          tokens ? fmt::format(", {} tokens a row", config.data.sequence_length)
                                 : std::string()));
  const std::string policy = value("batch.policy");
  say("recipe",
      fmt::format("batch {}{}, {} lr {}, schedule {} after {} of warmup, budget {}",
                  value("batch.global"), policy == "fixed" ? "" : " under policy " + policy,
                  value("optimizer.name"), value("optimizer.lr"), value("schedule.name"),
                  value("schedule.warmup"), value("budget")));
}

// What metrics.jsonl tells; a torn line is left out.
struct Course {
  Json last;  // of the newest update
  std::deque<std::string> losses;
  std::optional<double> best, newest;  // validation
  std::int64_t best_step = 0, newest_step = 0;
};

void add_line(Course& course, const Json& line) {
  const auto step = line["step"].get<std::int64_t>();
  if (line.contains("val_loss") && line["val_loss"].is_number()) {
    course.newest = line["val_loss"].get<double>();
    course.newest_step = step;
    if (!course.best || *course.newest < *course.best) {
      course.best = course.newest;
      course.best_step = step;
    }
  }
  if (!line.contains("loss")) {
    return;  // the validation before the first update
  }
  course.last = line;
  course.losses.push_back(line["loss"].is_number()
                              ? fmt::format("{:.4f}", line["loss"].get<double>())
                              : std::string("not finite"));
  if (course.losses.size() > kShownUpdates) {
    course.losses.pop_front();
  }
}

void show_course(const fs::path& folder) {
  const fs::path file = folder / "metrics.jsonl";
  Course course;
  if (is_file(file)) {
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
      const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (json.is_object() && json.contains("step") && json["step"].is_number_integer()) {
        add_line(course, json);
      }
    }
  }
  if (course.last.is_null()) {
    say("updates", "none");
  } else {
    const io::JsonObject last(course.last, file.string());
    say("updates", fmt::format("{}, {}, epoch {:.2f}, on {}", last.integer("step"),
                               counted(last.integer("samples"), "sample"), last.number("epoch"),
                               counted(last.integer("world_size"), "rank")));
    say("loss",
        fmt::format("{} (the last {})", fmt::join(course.losses, ", "), course.losses.size()));
  }
  if (course.newest) {
    say("validation", fmt::format("{:.4f} after step {}, best {:.4f} after step {}", *course.newest,
                                  course.newest_step, *course.best, course.best_step));
  }
}

void show_results(const fs::path& folder) {
  for (const char* name : {"adapter", "best", "model"}) {
    const fs::path result = folder / name;
    if (adapters::is_adapter(result)) {
      say(name, result.string() + ": " + adapters::summarise_adapter(result));
    } else if (is_file(result / "config.json")) {
      say(name, result.string() + ": a whole model");
    }
  }
}

// The rest of a run is worth seeing where one part of it is damaged.
void show(const char* what, const fs::path& folder, void (*part)(const fs::path&)) {
  try {
    part(folder);
  } catch (const Error& error) {
    say(what, std::string("DAMAGED: ") + error.what());
  }
}

void show_checkpoint(const fs::path& folder) {
  const std::string name = folder.filename().string();
  try {
    const io::Checkpoint checkpoint(folder);
    const auto json = io::parse_json(checkpoint.fields(), folder.string());
    const io::JsonObject fields(json, folder.string());
    std::cout << fmt::format("  {}  {:>10}  written by {}  intact\n", name,
                             counted(fields.integer("samples"), "sample"),
                             counted(fields.integer("world_size"), "rank"));
  } catch (const Error& error) {
    std::cout << fmt::format("  {}  DAMAGED: {}\n", name, error.what());
  }
}

}  // namespace

bool is_run_folder(const fs::path& folder) {
  std::error_code ignored;
  return is_file(folder / "config.yaml") &&
         (is_file(folder / "metrics.jsonl") || is_file(folder / "status.json") ||
          fs::is_directory(folder / "checkpoints", ignored));
}

bool is_checkpoints_folder(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_directory(folder, ignored) &&
         ((folder / "").parent_path().filename() == "checkpoints" ||
          !io::list_checkpoints(folder).empty());
}

void inspect_run(const fs::path& folder) {
  std::cout << "run folder " << folder.string() << '\n';
  show("status", folder, show_status);
  show("config", folder, show_config);
  show("updates", folder, show_course);
  show("results", folder, show_results);
  show("checkpoints", folder / "checkpoints", inspect_checkpoints);
}

void inspect_checkpoints(const fs::path& folder) {
  const auto steps = io::list_checkpoints(folder);
  std::cout << counted(static_cast<std::int64_t>(steps.size()), "checkpoint") << " in "
            << folder.string() << (steps.empty() ? "\n" : ", the newest first\n");
  for (const auto step : steps) {
    show_checkpoint(folder / io::checkpoint_name(step));
  }
}

}  // namespace lorascale::cli
