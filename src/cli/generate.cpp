#include <charconv>
#include <cmath>
#include <iostream>
#include <sstream>

#include "cli/common.hpp"
#include "train/data_preparation.hpp"
#include "workloads/tools.hpp"

namespace lorascale::cli {

namespace {

std::vector<double> strengths_of(const std::string& text) {
  constexpr std::size_t kMost = 16;
  std::vector<double> strengths;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    double value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || !std::isfinite(value)) {
      strengths.clear();
      break;
    }
    strengths.push_back(value);
  }
  if (strengths.empty() || strengths.size() > kMost || text.ends_with(',')) {
    throw Error(ExitCode::kUsage,
                "--strength takes a number, such as 0.8, or some with commas between");
  }
  return strengths;
}

}  // namespace

ExitCode run_generate(const Arguments& arguments) {
  auto description = config_options();
  description.add_options()("prompt", options::value<std::string>(),
                            "text to continue: any, where data.train is byte-level; else one that "
                            "it was prepared with (--prompt of scripts/prepare_text.py)")(
      "ids", options::value<std::string>(),
      "token ids to continue (scripts/encode_prompt.py makes them of text); prints ids")(
      "decode", "with --ids: prints text, by the table of data.train")(
      "adapter", options::value<std::string>(),
      "PEFT adapter folder, of pictures a LoRA file; default: adapter/ of the run, if there is "
      "one")("max-tokens", options::value<std::int64_t>(), "at most this many new tokens")(
      "output", options::value<std::string>(), "of a picture: the file to write (.png)")(
      "strength", options::value<std::string>()->default_value("1"),
      "of a picture: how much of the adapter's change is applied; of several with commas between, "
      "as 0,0.4,0.8,1.2, a picture each, side by side");
  const auto values = parse(arguments, description, config_position());
  if (values.count("prompt") + values.count("ids") != 1) {
    throw Error(ExitCode::kUsage,
                "generate takes one of --prompt TEXT and --ids \"1 2 3\", and not both");
  }
  constexpr std::int64_t kMostTokens = 1 << 20;
  if (values.count("max-tokens") != 0 && (values["max-tokens"].as<std::int64_t>() < 1 ||
                                          values["max-tokens"].as<std::int64_t>() > kMostTokens)) {
    throw Error(ExitCode::kUsage,
                "--max-tokens takes a whole number from 1 to " + std::to_string(kMostTokens));
  }
  Job job;
  if (job.size() > 1) {
    throw Error(ExitCode::kUsage, "generate works on one rank; start it without mpirun or srun");
  }
  const auto loaded = job.configure(values, config::Purpose::kModelOnly, /*ranks=*/1);
  const auto& config = loaded.config;
  workloads::GenerateRequest request;
  const auto text_of = [&](const char* option) {
    return values.count(option) != 0 ? std::optional(values[option].as<std::string>())
                                     : std::nullopt;
  };
  request.prompt = text_of("prompt");
  request.ids = text_of("ids");
  request.decode = values.count("decode") != 0;
  request.adapter = text_of("adapter");
  if (values.count("max-tokens") != 0) {
    request.max_tokens = values["max-tokens"].as<std::int64_t>();
  }
  request.output = text_of("output");
  request.strengths = strengths_of(values["strength"].as<std::string>());
  request.trained_on = train::trained_on(config.run.output_dir);
  request.prepare = [&] { return train::prepare_data(job.world(), config).train; };
  std::cout << workloads::generate(config, job.world().place, request) << '\n';
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
