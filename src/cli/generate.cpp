#include "models/decoder/generate.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <charconv>
#include <iostream>
#include <optional>

#include "adapters/base_name.hpp"
#include "adapters/peft_format.hpp"
#include "cli/common.hpp"
#include "train/data_preparation.hpp"
#include "train/leaf_stream.hpp"
#include "train/session.hpp"

namespace lorascale::cli {
namespace {

// Token ids given as numbers, for models whose tokenizer is not at hand.
std::vector<std::int32_t> parse_ids(const std::string& text, std::int64_t vocabulary) {
  constexpr const char* kBetween = " ,\t\n";
  std::vector<std::int32_t> ids;
  for (auto at = text.find_first_not_of(kBetween); at != std::string::npos;) {
    const auto end = std::min(text.find_first_of(kBetween, at), text.size());
    std::int64_t id = -1;
    const auto [rest, status] = std::from_chars(text.data() + at, text.data() + end, id);
    if (status != std::errc() || rest != text.data() + end || id < 0 || id >= vocabulary) {
      throw Error(ExitCode::kUsage, "--ids takes token ids from 0 to " +
                                        std::to_string(vocabulary - 1) +
                                        " separated by spaces or commas, not '" + text + "'");
    }
    ids.push_back(static_cast<std::int32_t>(id));
    at = text.find_first_not_of(kBetween, end);
  }
  if (ids.empty()) {
    throw Error(ExitCode::kUsage, "--ids is empty; give at least one token id to continue");
  }
  return ids;
}

bool knows(const train::TokenSource& source, const std::string& prompt) {
  try {
    static_cast<void>(source.encode_prompt(prompt));
    return true;
  } catch (const Error&) {
    return false;
  }
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
  const std::filesystem::path run = config.run.output_dir;
  const bool whole = config.adapter.type == "full" && std::filesystem::exists(run / "model");
  const auto base = whole ? run / "model" : std::filesystem::path(config.model.path);
  const auto model = models::decoder::load_decoder(base, train::parse_dtype(config.model.dtype),
                                                   job.world().place);
  for (const auto& warning : model->config().warnings) {
    spdlog::warn("{}", warning);
  }
  const bool chosen = values.count("adapter") != 0;
  const std::filesystem::path folder =
      chosen ? std::filesystem::path(values["adapter"].as<std::string>()) : run / "adapter";
  std::int64_t answer_end = -1;
  if (chosen || (!whole && std::filesystem::exists(folder))) {
    const auto adapter = adapters::read_peft_adapter(folder);
    if (const auto warning = adapters::warning_of_other_base(adapter, base)) {
      spdlog::warn("{}", *warning);
    }
    adapters::merge_into_weights(adapter, model->linear_groups());
    answer_end = adapter.answer_end_id;
  } else if (!whole) {
    spdlog::warn("{} does not exist: this is the base model without an adapter", folder.string());
  }
  const bool takes_text = values.count("ids") == 0;
  const auto given = takes_text ? std::vector<std::int32_t>{}
                                : parse_ids(values["ids"].as<std::string>(), model->vocabulary());
  std::optional<train::TokenSource> source;
  if (takes_text || values.count("decode") != 0) {
    const auto open = [&](const std::filesystem::path& file) {
      source.emplace(file, train::TokenSourceSettings{config.data.sequence_length, false,
                                                      model->vocabulary(), 1, true});
    };
    // What the run trained on, if there is a run and it knows the prompt: no source of it is needed
    // again. A prompt that the configuration names since is prepared.
    if (const auto before = train::trained_on(run)) {
      open(*before);
      if (takes_text && !knows(*source, values["prompt"].as<std::string>())) {
        source.reset();
      }
    }
    if (!source) {
      open(train::prepare_data(job.world(), config).train);
    }
  }
  models::decoder::GenerationSettings settings{config.sample.max_tokens, config.sample.temperature,
                                               config.sample.top_p, config.run.seed,
                                               train::end_ids(*model, source ? &*source : nullptr)};
  if (answer_end >= 0) {
    settings.stop_ids.push_back(answer_end);
  }
  if (values.count("max-tokens") != 0) {
    settings.max_tokens = values["max-tokens"].as<std::int64_t>();
  }
  const auto prompt =
      takes_text ? source->encode_prompt(values["prompt"].as<std::string>()) : given;
  const double context = model->config().context;
  const auto most = static_cast<std::int64_t>(prompt.size()) + settings.max_tokens;
  if (context > 0 && static_cast<double>(most) > context) {
    spdlog::warn(
        "the prompt of {} and up to {} new tokens are more than the {:.0f} positions that the "
        "model was made for (max_position_embeddings); what comes beyond them may be poor",
        prompt.size(), settings.max_tokens, context);
  }
  const auto ids = models::decoder::generate(*model, prompt, settings);
  if (source) {
    std::cout << source->decode(ids) << '\n';
  } else {
    std::cout << fmt::format("{}\n", fmt::join(ids, " "));
  }
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
