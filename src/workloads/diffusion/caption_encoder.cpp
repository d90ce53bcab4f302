#include "workloads/diffusion/caption_encoder.hpp"

#include "base/child_process.hpp"
#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "io/strict_json.hpp"
#include "models/diffusion/pipeline_config.hpp"
#include "prepare/python.hpp"

namespace lorascale::workloads::diffusion {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;

std::vector<std::string> command_of(const config::RunConfig& config,
                                    const std::vector<std::string>& captions,
                                    const std::string& python) {
  std::vector<std::string> command = {python, prepare::find_script("encode_captions.py").string()};
  if (config.model.tokenizer) {
    command.insert(command.end(), {"--tokenizer", *config.model.tokenizer});
  } else if (models::diffusion::is_pipeline_folder(config.model.path)) {
    command.insert(command.end(), {"--model", config.model.path});
  } else {
    throw_bad_input(config.model.path +
                    " holds no tokenizer for prompts; name a tokenizer's folder, or CLIP's "
                    "bpe_simple_vocab_16e6.txt.gz, by model.tokenizer");
  }
  command.push_back("--");
  command.insert(command.end(), captions.begin(), captions.end());
  return command;
}

}  // namespace

EncodedCaptions encode_captions(const config::RunConfig& config,
                                const std::vector<std::string>& captions) {
  const auto keep_going = [] {
    beat("encoding prompts");
    return true;
  };
  const auto python = prepare::find_python({{}, {"tokenizers", "numpy"}, keep_going});
  if (!python) {
    throw_bad_input(
        "prompts become tokens by a script, and no Python with tokenizers and numpy is here; set "
        "LORASCALE_PYTHON, or leave sample.prompts and adapter.token out");
  }
  std::vector<std::string> lines;
  std::string last;
  const auto outcome = run_child(
      {command_of(config, captions, *python), {{"PYTHONDONTWRITEBYTECODE", "1"}}},
      [&](ChildStream stream, std::string_view line) {
        (stream == ChildStream::kOutput ? lines.emplace_back() : last) = line;
      },
      keep_going);
  if (outcome.exit_code != 0 || outcome.signal != 0 || lines.size() != captions.size() + 1) {
    throw_bad_input("the prompts could not be made into tokens: " + last);
  }
  const std::string where = "encode_captions.py";
  const auto head = io::parse_json(lines.front(), where);
  const io::JsonObject fields(head, where);
  EncodedCaptions result;
  const auto token = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
  result.tokens.vocabulary = fields.integer("vocabulary", 1, kMostTokens);
  result.tokens.begin = token(fields.integer("begin", 0, kMostTokens));
  result.tokens.end = token(fields.integer("end", 0, kMostTokens));
  for (const auto pad : fields.integers("pads", 0, kMostTokens)) {
    result.tokens.pads.push_back(token(pad));
  }
  result.tokens.tokenizer = fields.text("tokenizer");
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const nlohmann::json wrapped = {{"ids", io::parse_json(lines[i], where)}};
    auto& ids = result.ids.emplace_back();
    for (const auto id : io::JsonObject(wrapped, where).integers("ids", 0, kMostTokens)) {
      ids.push_back(token(id));
    }
  }
  return result;
}

}  // namespace lorascale::workloads::diffusion
