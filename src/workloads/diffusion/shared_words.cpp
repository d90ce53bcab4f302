#include "workloads/diffusion/shared_words.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <set>
#include <string_view>

namespace lorascale::workloads::diffusion {
namespace {

constexpr std::size_t kFewestCaptions = 3;

// Words that say nothing of a picture by themselves.
constexpr std::array<std::string_view, 26> kSmallWords = {
    "a",  "an", "the", "of", "in", "on",  "at",   "by",   "to",    "for",  "from",  "with", "and",
    "or", "is", "are", "as", "it", "its", "this", "that", "there", "into", "while", "his",  "her"};

bool parts_words(char letter) {
  return std::string_view(" \t\r\n,.;:!?()[]{}\"").find(letter) != std::string_view::npos;
}

std::string in_small_letters(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  });
  return result;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    if (i == text.size() || parts_words(text[i])) {
      if (i > begin) {
        words.push_back(in_small_letters(text.substr(begin, i - begin)));
      }
      begin = i + 1;
    }
  }
  return words;
}

bool is_small(const std::string& word) {
  return std::ranges::find(kSmallWords, word) != kSmallWords.end();
}

bool is_one_of(const std::vector<std::string>& words, const std::string& word) {
  return std::ranges::any_of(
      words, [&](const std::string& each) { return in_small_letters(each) == word; });
}

// Of the text between two commas: what is left of it, with single spaces.
std::string part_without(std::string_view part, const std::vector<std::string>& words) {
  std::string left;
  std::size_t begin = 0;
  const auto add = [&](std::size_t end) {
    const auto word = part.substr(begin, end - begin);
    if (!word.empty() && !is_one_of(words, in_small_letters(word))) {
      left += word;
    }
  };
  for (std::size_t i = 0; i <= part.size(); ++i) {
    if (i < part.size() && !parts_words(part[i])) {
      continue;
    }
    add(i);
    if (i < part.size() && !(part[i] == ' ' && (left.empty() || left.back() == ' '))) {
      left += part[i];
    }
    begin = i + 1;
  }
  while (!left.empty() && left.back() == ' ') {
    left.pop_back();
  }
  return left;
}

}  // namespace

std::vector<std::string> shared_words(const std::vector<std::string>& captions) {
  if (captions.size() < kFewestCaptions) {
    return {};
  }
  std::map<std::string, std::size_t> counts;
  for (const auto& caption : captions) {
    const auto words = words_of(caption);
    for (const auto& word : std::set(words.begin(), words.end())) {
      ++counts[word];
    }
  }
  const auto is_shared = [&](const std::string& word) {
    return !is_small(word) && 10 * counts[word] >= 9 * captions.size();
  };
  std::vector<std::string> most;
  for (const auto& caption : captions) {
    std::vector<std::string> shared;
    for (const auto& word : words_of(caption)) {
      if (is_shared(word) && std::ranges::find(shared, word) == shared.end()) {
        shared.push_back(word);
      }
    }
    if (shared.size() > most.size()) {
      most = shared;
    }
  }
  return most;
}

bool has_words(const std::string& prompt, const std::vector<std::string>& words) {
  const auto of_prompt = words_of(prompt);
  return std::ranges::all_of(words, [&](const std::string& word) {
    return std::ranges::find(of_prompt, in_small_letters(word)) != of_prompt.end();
  });
}

std::string without_words(const std::string& prompt, const std::vector<std::string>& words) {
  std::string left;
  for (std::size_t begin = 0; begin <= prompt.size();) {
    const auto end = std::min(prompt.find(',', begin), prompt.size());
    const auto part = part_without(std::string_view(prompt).substr(begin, end - begin), words);
    if (!words_of(part).empty()) {
      left += (left.empty() ? "" : ", ") + part;
    }
    begin = end + 1;
  }
  const auto of_left = words_of(left);
  return std::ranges::all_of(of_left, is_small) ? std::string() : left;
}

}  // namespace lorascale::workloads::diffusion
