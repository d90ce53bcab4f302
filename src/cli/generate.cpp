#include "models/llama/generate.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <iostream>

#include "adapters/peft_format.hpp"
#include "cli/common.hpp"
#include "train/leaf_stream.hpp"
#include "train/session.hpp"

namespace lorascale::cli {
namespace {

// Token ids given as numbers, for models whose tokenizer is not at hand.
std::vector<std::int32_t> parse_ids(const std::string& text, std::int64_t vocabulary) {
  std::vector<std::int32_t> ids;
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t used = 0;
    long id = -1;
    try {
      id = std::stol(text.substr(at), &used);
    } catch (const std::exception&) {
    }
    if (id < 0 || id >= vocabulary) {
      throw Error(ExitCode::kUsage, "--ids takes token ids from 0 to " +
                                        std::to_string(vocabulary - 1) +
                                        " separated by spaces or commas, not '" + text + "'");
    }
    ids.push_back(static_cast<std::int32_t>(id));
    at = text.find_first_of("0123456789-", at + used);
    at = at == std::string::npos ? text.size() : at;
  }
  if (ids.empty()) {
    throw Error(ExitCode::kUsage, "--ids is empty; give at least one token id to continue");
  }
  return ids;
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
      "PEFT adapter folder; default: adapter/ of the run, if there is one")(
      "max-tokens", options::value<std::int64_t>(), "at most this many new tokens");
  const auto values = parse(arguments, description, config_position());
  if (values.count("prompt") + values.count("ids") != 1) {
    throw Error(ExitCode::kUsage,
                "generate takes one of --prompt TEXT and --ids \"1 2 3\", and not both");
  }
  constexpr std::int64_t kMostTokens = 1 << 20;
  if (values.count("max-tokens") != 0 &&
      (values["max-tokens"].as<std::int64_t>() < 1 ||
       values["max-tokens"].as<std::int64_t>() > kMostTokens)) {
    throw Error(ExitCode::kUsage,
                "--max-tokens takes a whole number from 1 to " + std::to_string(kMostTokens));
  }
  Job job;
  const auto loaded = job.configure(values, config::Purpose::kModelOnly, /*ranks=*/1);
  const auto& config = loaded.config;
  const std::filesystem::path run = config.run.output_dir;
  const bool whole = config.adapter.type == "full" && std::filesystem::exists(run / "model");
  const auto model =
      models::llama::load_llama(whole ? run / "model" : std::filesystem::path(config.model.path),
                                train::parse_dtype(config.model.dtype), job.world().place);
  const bool chosen = values.count("adapter") != 0;
  const std::filesystem::path folder =
      chosen ? std::filesystem::path(values["adapter"].as<std::string>()) : run / "adapter";
  if (chosen || (!whole && std::filesystem::exists(folder))) {
    adapters::merge_into_weights(adapters::read_peft_adapter(folder), model->linear_groups());
  } else if (!whole) {
    spdlog::warn("{} does not exist: this is the base model without an adapter", folder.string());
  }
  models::llama::GenerationSettings settings{config.sample.max_tokens, config.sample.temperature,
                                             config.sample.top_p, config.run.seed,
                                             model->config().eos_ids};
  if (values.count("max-tokens") != 0) {
    settings.max_tokens = values["max-tokens"].as<std::int64_t>();
  }
  const auto continue_ids = [&](const std::vector<std::int32_t>& prompt) {
    return models::llama::generate(*model, prompt, settings);
  };
  const auto open_data = [&] {
    return train::TokenSource(config.data.train,
                              {config.data.sequence_length, false, model->vocabulary()});
  };
  if (values.count("ids") == 0) {
    const auto source = open_data();
    const auto prompt = source.encode_prompt(values["prompt"].as<std::string>());
    std::cout << source.decode(continue_ids(prompt)) << '\n';
    return ExitCode::kDone;
  }
  const auto ids = continue_ids(parse_ids(values["ids"].as<std::string>(), model->vocabulary()));
  if (values.count("decode") != 0) {
    std::cout << open_data().decode(ids) << '\n';
  } else {
    std::cout << fmt::format("{}\n", fmt::join(ids, " "));
  }
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
