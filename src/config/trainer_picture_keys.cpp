#include "config/trainer_picture_keys.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/value_kinds.hpp"

namespace lorascale::config {
namespace {

constexpr std::string_view kUnet = R"(unet\..*)";
constexpr std::string_view kTextEncoders = R"(text_encoder.*)";
constexpr std::int64_t kLongestPrompts = 1 << 20;  // bytes of a file of them

std::optional<double> rate_in(const YamlNode* value) {
  if (value == nullptr || value->kind == YamlNode::Kind::kNull) {
    return std::nullopt;
  }
  double rate = 0;
  read_leniently(*value, [&](const YamlNode& node) { RealKind{0}.read(node, rate); });
  return rate;
}

// The rate that parts are parts of.
std::optional<double> rate_of_run(const Sibling& sibling) {
  const auto rate = rate_in(sibling("learning_rate"));
  return rate ? rate : rate_in(sibling("unet_lr"));
}

void add_part(std::string_view layers, const YamlNode* value, double whole, YamlNode& pattern) {
  const auto rate = rate_in(value);
  if (!rate || *rate == whole) {
    return;
  }
  if (whole == 0) {
    throw ValueError("is a part of learning_rate, which is 0");
  }
  pattern.entries.push_back(
      {std::string(layers), value->line, YamlNode::scalar(real_text(*rate / whole), value->line)});
}

Carried parts_of_rate(const AliasUse& use, const Sibling& sibling) {
  YamlNode pattern;
  pattern.kind = YamlNode::Kind::kMap;
  pattern.line = use.line;
  const double whole = rate_of_run(sibling).value_or(0);
  add_part(kUnet, sibling("unet_lr"), whole, pattern);
  add_part(kTextEncoders, sibling("text_encoder_lr"), whole, pattern);
  if (pattern.entries.empty()) {
    return {{}, "no effect: it is the rate of the run"};
  }
  return {{{"adapter.lr_pattern", std::move(pattern)}}, ""};
}

Carried whole_rate(const AliasUse& use) {
  return {{{"optimizer.lr", *use.value}}, ""};
}

bool is_blank(const std::string& line) {
  return std::ranges::all_of(line, [](unsigned char c) { return std::isspace(c) != 0; });
}

// As sd-scripts reads it: lines that begin with # are comments.
std::vector<YamlNode> prompts_in(const std::string& file, int line) {
  std::ifstream stream(file, std::ios::binary | std::ios::ate);
  if (!stream) {
    throw ValueError("names " + in_quotes(file) + ", which cannot be read");
  }
  if (stream.tellg() > std::streampos(kLongestPrompts)) {
    throw ValueError("names " + in_quotes(file) + ", which is too large for a list of prompts");
  }
  stream.seekg(0);
  std::vector<YamlNode> prompts;
  for (std::string text; std::getline(stream, text);) {
    if (!text.empty() && text.back() == '\r') {
      text.pop_back();
    }
    if (!is_blank(text) && text.front() != '#') {
      prompts.push_back(YamlNode::scalar(text, line));
    }
  }
  return prompts;
}

// Convolutions of 3 x 3 get a rank and an alpha of their own; those of 1 x 1 and the projections
// beside them have the network's.
void add_convolutions(std::int64_t rank, double alpha, int line, Carried& carried) {
  static constexpr std::array kLarge = {"conv1", "conv2", "downsamplers.0.conv",
                                        "upsamplers.0.conv"};
  std::vector<YamlNode> targets;
  for (const auto& name : picture_targets()) {
    targets.push_back(YamlNode::scalar(name, line));
  }
  for (const auto* name : {"conv_shortcut", "time_emb_proj"}) {
    targets.push_back(YamlNode::scalar(name, line));
  }
  YamlNode ranks, alphas;
  ranks.kind = alphas.kind = YamlNode::Kind::kMap;
  ranks.line = alphas.line = line;
  for (const auto* name : kLarge) {
    targets.push_back(YamlNode::scalar(name, line));
    ranks.entries.push_back({name, line, YamlNode::scalar(std::to_string(rank), line)});
    alphas.entries.push_back({name, line, YamlNode::scalar(real_text(alpha), line)});
  }
  carried.settings.push_back({"adapter.targets", YamlNode::sequence(std::move(targets), line)});
  carried.settings.push_back({"adapter.rank_pattern", std::move(ranks)});
  carried.settings.push_back({"adapter.alpha_pattern", std::move(alphas)});
}

}  // namespace

const std::vector<std::string>& picture_targets() {
  static const std::vector<std::string> kTargets = {
      "to_q",     "to_k",   "to_v",   "to_out.0", "proj_in",  "proj_out", "ff.net.0.proj",
      "ff.net.2", "q_proj", "k_proj", "v_proj",   "out_proj", "fc1",      "fc2"};
  return kTargets;
}

Carried carry_unet_rate(const AliasUse& use, const Sibling& sibling) {
  if (!rate_in(use.value)) {
    return {{}, "no effect"};
  }
  if (!rate_in(sibling("learning_rate"))) {
    return whole_rate(use);
  }
  return rate_in(sibling("text_encoder_lr")) ? Carried{{}, "a part of text_encoder_lr's line"}
                                             : parts_of_rate(use, sibling);
}

Carried carry_text_encoder_rate(const AliasUse& use, const Sibling& sibling) {
  if (!rate_in(use.value)) {
    return {{}, "no effect"};
  }
  return rate_of_run(sibling) ? parts_of_rate(use, sibling) : whole_rate(use);
}

Carried carry_sampler(const AliasUse& use) {
  struct Name {
    std::string_view theirs, ours;
  };
  static constexpr std::array kNames = {
      Name{"ddim", "ddim"},         Name{"euler", "euler"},
      Name{"k_euler", "euler"},     Name{"euler_a", "euler_a"},
      Name{"k_euler_a", "euler_a"}, Name{"dpmsolver++", "dpmpp_2m_karras"}};
  if (use.value->kind == YamlNode::Kind::kNull) {
    return {{}, "no effect"};
  }
  const std::string& name = scalar_text(*use.value, "a name");
  for (const auto& each : kNames) {
    if (each.theirs == name) {
      return {
          {{std::string(use.alias->target), YamlNode::scalar(std::string(each.ours), use.line)}},
          ""};
    }
  }
  throw ValueError(in_quotes(name) +
                   " is not offered; write ddim, euler, euler_a or dpmsolver++, or sample.sampler");
}

Carried carry_caption_length(const AliasUse& use) {
  constexpr std::int64_t kRow = 75, kMost = 225;
  if (use.value->kind == YamlNode::Kind::kNull) {
    return {{}, "no effect"};
  }
  std::int64_t tokens = 0;
  IntegerKind{kRow, 1000000}.read(*use.value, tokens);
  const auto taken = std::min(kMost, tokens / kRow * kRow);
  return {{{std::string(use.alias->target), YamlNode::scalar(std::to_string(taken), use.line)}},
          ""};
}

Carried carry_new_word(const AliasUse& use, const Sibling& sibling) {
  if (use.value->kind == YamlNode::Kind::kNull || scalar_text(*use.value, "a word").empty()) {
    return {{}, "no effect"};
  }
  Carried carried{{{"adapter.token.word", *use.value}}, ""};
  if (sibling("network_module") == nullptr && sibling("network_dim") == nullptr) {
    carried.settings.push_back({"adapter.type", YamlNode::scalar("token", use.line)});
  }
  return carried;
}

Carried carry_network_arguments(const AliasUse& use) {
  if (use.value->kind == YamlNode::Kind::kNull) {
    return {{}, "no effect"};
  }
  std::vector<YamlNode> items = use.value->items;
  if (use.value->kind != YamlNode::Kind::kSequence) {
    items = {*use.value};
  }
  Carried carried;
  std::optional<std::int64_t> rank;
  double alpha = 1;  // as networks.lora has it where nobody says
  for (const auto& item : items) {
    const std::string& text = scalar_text(item, "a list of settings, as [conv_dim=4]");
    if (is_blank(text)) {
      continue;
    }
    const auto sign = std::min(text.find('='), text.size());
    const auto key = text.substr(0, sign);
    const auto value = YamlNode::scalar(text.substr(std::min(sign + 1, text.size())), use.line);
    if (key == "conv_dim") {
      IntegerKind{1, 65536}.read(value, rank.emplace());
    } else if (key == "conv_alpha") {
      RealKind{0, true}.read(value, alpha);
    } else if (key == "dropout" || key == "rank_dropout" || key == "module_dropout") {
      carried.settings.push_back({"adapter." + key, value});
    } else {
      throw ValueError("holds " + in_quotes(text) +
                       ", which has no counterpart; conv_dim, conv_alpha, dropout, rank_dropout "
                       "and module_dropout have");
    }
  }
  if (rank) {
    add_convolutions(*rank, alpha, use.line, carried);
  }
  if (carried.settings.empty()) {
    carried.outcome = "no effect";
  }
  return carried;
}

Carried carry_prompts(const AliasUse& use) {
  if (use.value->kind == YamlNode::Kind::kNull) {
    return {{}, "no effect"};
  }
  const std::string target(use.alias->target);
  if (use.value->kind == YamlNode::Kind::kSequence) {
    return {{{target, *use.value}}, ""};
  }
  const std::string& text = scalar_text(*use.value, "a file or a prompt");
  if (is_blank(text)) {
    return {{}, "no effect"};
  }
  std::vector<YamlNode> prompts = {YamlNode::scalar(text, use.line)};
  if (text.ends_with(".txt")) {
    prompts = prompts_in(text, use.line);
  } else if (text.ends_with(".json") || text.ends_with(".toml")) {
    throw ValueError("names " + in_quotes(text) + "; write a .txt file with a prompt on each line");
  }
  const auto count = prompts.size();
  return {{{target, YamlNode::sequence(std::move(prompts), use.line)}},
          fmt::format("{}, {} of them", target, count)};
}

}  // namespace lorascale::config
