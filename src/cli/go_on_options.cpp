#include "cli/go_on_options.hpp"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "base/units.hpp"

namespace lorascale::cli {
namespace {

// Of one of `units`; what is written otherwise is a wrong command line.
std::optional<Amount> amount_of(const options::variables_map& values, const char* name,
                                std::initializer_list<Unit> units, const char* example) {
  if (values.count(name) == 0) {
    return std::nullopt;
  }
  const auto text = values[name].as<std::string>();
  const auto refuse = [&](const std::string& what) {
    throw Error(ExitCode::kUsage, std::string("--") + name + ": " + what + "; write " + example);
  };
  Amount amount;
  try {
    amount = parse_amount(text, Unit::kSteps);
  } catch (const Error& error) {
    throw Error(ExitCode::kUsage, std::string("--") + name + ": " + error.what());
  }
  if (std::ranges::find(units, amount.unit) == units.end() || amount.value <= 0 ||
      (amount.unit == Unit::kFraction && amount.value >= 1)) {
    refuse("'" + text + "' is not taken");
  }
  return amount;
}

}  // namespace

void add_go_on_options(options::options_description& description) {
  description.add_options()("more", options::value<std::string>(),
                            "go on beyond the budget by a new leg of the schedule")(
      "leg-rate", options::value<std::string>(), "present or peak: how that leg begins")(
      "cooldown", options::value<std::string>(), "end by a cooldown of this length")(
      "into", options::value<std::string>(), "go on in this folder, from a checkpoint of the run")(
      "at-step", options::value<std::int64_t>(), "that checkpoint; else the newest");
}

train::GoOn go_on_of(const options::variables_map& values) {
  const auto given = [&](const char* name) { return values.count(name) != 0; };
  const auto require = [](bool sound, const char* message) {
    if (!sound) {
      throw Error(ExitCode::kUsage, message);
    }
  };
  train::GoOn wish;
  wish.more =
      amount_of(values, "more", {Unit::kSamples, Unit::kTokens, Unit::kSteps, Unit::kEpochs},
                "'2 epochs', '500 steps' or '2M samples'");
  wish.cooldown =
      amount_of(values, "cooldown",
                {Unit::kFraction, Unit::kSamples, Unit::kTokens, Unit::kSteps, Unit::kEpochs},
                "'10%' (of the run that it ends), '50 steps' or '2000 samples'");
  require(!wish.more || !wish.cooldown, "--more and --cooldown are two ways on; choose one");
  require(!wish.cooldown || given("into"),
          "--cooldown ends a run; name another folder for it with --into FOLDER, so that this one "
          "can go on");
  require(wish.more || !given("leg-rate"),
          "--leg-rate says how --more AMOUNT begins; give that too");
  require(given("into") || !given("at-step"),
          "--at-step names a checkpoint to go on from in another folder; give --into FOLDER too");
  if (given("leg-rate")) {
    const auto rate = values["leg-rate"].as<std::string>();
    require(rate == "present" || rate == "peak", "--leg-rate is present or peak");
    wish.leg_start =
        rate == "peak" ? coordinator::LegStart::kRewarm : coordinator::LegStart::kPresent;
  }
  if (given("at-step")) {
    wish.at_step = values["at-step"].as<std::int64_t>();
  }
  return wish;
}

}  // namespace lorascale::cli
