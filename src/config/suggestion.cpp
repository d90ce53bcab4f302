#include "config/suggestion.hpp"

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "config/aliases.hpp"
#include "config/options.hpp"
#include "config/text.hpp"

namespace lorascale::config {
namespace {

std::string last_word(std::string_view path) {
  return std::string(path.substr(path.rfind('.') + 1));  // npos + 1 is 0
}

// Options, the sections they are in, and aliases.
std::vector<std::string> all_names() {
  std::vector<std::string> names;
  for (const auto& option : options()) {
    names.push_back(option.path);
    for (std::size_t dot = option.path.find('.'); dot != std::string::npos;
         dot = option.path.find('.', dot + 1)) {
      const std::string section = option.path.substr(0, dot);
      if (std::find(names.begin(), names.end(), section) == names.end()) {
        names.push_back(section);
      }
    }
  }
  for (const auto& alias : aliases()) {
    if (alias.meaning != AliasMeaning::kRefused) {  // which would only be refused next
      names.emplace_back(alias.name);
    }
  }
  return names;
}

std::optional<std::string> option_with_last_word(const std::string& word) {
  for (const auto& option : options()) {
    if (last_word(option.path) == word) {
      return option.path;
    }
  }
  const Alias* alias = find_alias(word);
  if (alias != nullptr && find_option(alias->target) != nullptr) {
    return std::string(alias->target);
  }
  return std::nullopt;
}

constexpr std::size_t kShortWord = 5;

// How many letters may be wrong in what is still the same word.
std::size_t slip_of(const std::string& path) {
  return path.size() <= kShortWord ? 1 : 2;
}

// A slip of the pen in the whole path first; then a right word in the wrong section; then what is
// left.
std::optional<std::string> meant(const std::string& path) {
  auto near = nearest(path, all_names());
  if (near && edit_distance(path, *near) <= slip_of(path)) {
    return near;
  }
  const std::string word = last_word(path);
  if (word == path && word.size() <= kShortWord) {
    near.reset();  // two letters of five are another word
  }
  if (auto same = option_with_last_word(word)) {
    return same;
  }
  // The section is most of a long path; its last word must be near, too.
  if (near && nearest(word, {last_word(*near)})) {
    return near;
  }
  std::vector<std::string> words;
  for (const auto& option : options()) {
    words.push_back(last_word(option.path));
  }
  const auto near_word = nearest(word, words);
  const bool close =
      near_word && (word.size() > kShortWord || edit_distance(word, *near_word) <= slip_of(word));
  return close ? option_with_last_word(*near_word) : std::nullopt;
}

// "model.resnet has block, layers, ..."; empty where the path is in no section, or in one of many.
std::string keys_beside(const std::string& path) {
  constexpr std::size_t kFew = 12;
  const auto dot = path.rfind('.');
  const auto section = path.substr(0, dot);
  if (dot == std::string::npos || !is_section(section)) {
    return {};
  }
  const auto keys = options_of_section(section);
  std::string list;
  for (const auto* key : keys) {
    list += (list.empty() ? "" : ", ") + key->path.substr(section.size() + 1);
  }
  return keys.size() > kFew ? std::string() : section + " has " + list;
}

}  // namespace

std::string suggestion_for(const std::string& path) {
  if (const Alias* alias = find_alias(path);
      alias != nullptr && find_option(alias->target) == nullptr) {
    return "; it is a key of other trainers that is understood in a file alone";
  }
  if (const auto name = meant(path)) {
    return "; did you mean '" + *name + "'?";
  }
  const auto beside = keys_beside(path);
  return "; " + (beside.empty() ? "lorascale --help lists all keys" : beside);
}

}  // namespace lorascale::config
