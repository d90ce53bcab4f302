// Settings of the adapter that a run begins with, where the configuration is silent.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "adapters/formats/embedding.hpp"
#include "adapters/formats/peft.hpp"
#include "adapters/formats/picture_lora.hpp"
#include "adapters/lora/lora_adapter.hpp"
#include "adapters/targets.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

// Many names are of layers one by one, which nobody reads.
constexpr std::size_t kMostNamesShown = 8;

std::string shown(const std::vector<std::string>& names) {
  return names.size() > kMostNamesShown ? fmt::format("{} layers by name", names.size())
                                        : fmt::format("[{}]", fmt::join(names, ", "));
}

// Names in another order mean the same, and a run that goes on should find the words it began with.
bool same_names(std::vector<std::string> a, std::vector<std::string> b) {
  std::ranges::sort(a);
  std::ranges::sort(b);
  return a == b;
}

// Patterns are of the file's layers: if the user's targets leave some of them out, it is these
// targets that contradict the file.
void require_all_targeted(const PeftAdapter& adapter, const std::vector<std::string>& targets) {
  if (targets.size() == 1) {
    return;  // a regular expression perhaps, or all-linear
  }
  for (const auto& [name, module] : adapter.modules) {
    if (std::ranges::none_of(targets, [&, &layer = name](const std::string& target) {
          return target_names(target, layer);
        })) {
      throw_bad_config("adapter.init_from " + adapter.folder.string() +
                       " adapts layers that adapter.targets leaves out, such as " + name +
                       "; remove adapter.targets, and they are taken from the file");
    }
  }
}

}  // namespace

std::optional<std::string> take_lora_settings(const std::set<std::string>& given,
                                              config::RunConfig* config) {
  auto& section = config->adapter;
  if (!section.init_from || section.init_from->empty()) {
    return std::nullopt;
  }
  const auto word = embedding_file(*section.init_from);
  if (word == std::filesystem::path(*section.init_from)) {
    throw_bad_input("adapter.init_from: " + *section.init_from +
                    " is the embedding of a word, no LoRA; adapter.type: token begins from it, and "
                    "lora from a folder with both");
  }
  if (word && section.token.word && !given.contains("adapter.token.vectors")) {
    section.token.vectors = read_embedding(*word).rows.front().size(0);
  }
  const auto refuse_ia3 = [&] {
    throw_bad_config("adapter.init_from: " + *section.init_from +
                     " is of IA3, and adapter.type is lora; set adapter.type: ia3");
  };
  if (const auto lora = picture_lora(*section.init_from)) {
    if (is_picture_ia3(*lora)) {
      refuse_ia3();
    }
    const auto ranks = ranks_of_picture_lora(*lora);
    if (given.contains("adapter.rank") && !ranks.contains(section.rank)) {
      throw_bad_config(
          fmt::format("adapter.rank {} is not that of adapter.init_from {}, {}; leave "
                      "it out",
                      section.rank, *section.init_from, fmt::join(ranks, ", ")));
    }
    if (!given.contains("adapter.dora")) {
      section.dora = is_picture_dora(*lora);
    }
    return fmt::format("adapter.init_from {}: layers, ranks and alphas are the file's",
                       *section.init_from);
  }
  const auto adapter = [&] {
    try {
      return read_peft_adapter(*section.init_from);
    } catch (const Error& error) {
      throw Error(error.code(), std::string("adapter.init_from: ") + error.what());
    }
  }();
  if (adapter.ia3) {
    refuse_ia3();
  }
  const auto theirs = settings_to_go_on(adapter);
  std::vector<std::string> taken;
  const auto take = [&](const char* key, auto& ours, const auto& value, const std::string& text) {
    if (!given.contains(std::string("adapter.") + key)) {
      ours = value;
      if (!text.empty()) {
        taken.push_back(std::string(key) + " " + text);
      }
    }
  };
  take("rank", section.rank, theirs.rank, fmt::format("{}", theirs.rank));
  take("alpha", section.alpha, theirs.alpha, fmt::format("{:g}", theirs.alpha));
  take("dropout", section.dropout, theirs.dropout, fmt::format("{:g}", theirs.dropout));
  take("rslora", section.rslora, theirs.rslora, theirs.rslora ? "true" : "false");
  take("dora", section.dora, theirs.dora, theirs.dora ? "true" : "");
  if (given.contains("adapter.targets")) {
    require_all_targeted(adapter, section.targets);
  }
  const auto targets =
      same_names(section.targets, theirs.targets) ? section.targets : theirs.targets;
  take("targets", section.targets, targets, shown(targets));
  const auto patterned = [&](const auto& pattern) {
    return pattern.empty() ? std::string() : fmt::format("of {} layers", pattern.size());
  };
  take("rank_pattern", section.rank_pattern, theirs.rank_pattern, patterned(theirs.rank_pattern));
  take("alpha_pattern", section.alpha_pattern, theirs.alpha_pattern,
       patterned(theirs.alpha_pattern));
  if (taken.empty()) {
    return std::nullopt;
  }
  return fmt::format("adapter.init_from {}: taken from it: {}", *section.init_from,
                     fmt::join(taken, ", "));
}

}  // namespace lorascale::adapters
