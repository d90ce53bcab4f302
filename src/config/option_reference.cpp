#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "config/options.hpp"

namespace lorascale::config {
namespace {

// Breaks `text` into lines of at most `width` characters, each indented.
std::string wrapped(std::string_view text, std::size_t indent, std::size_t width) {
  std::string out;
  std::string line;
  while (!text.empty()) {
    const std::size_t space = text.find(' ');
    const std::string_view word = text.substr(0, space);
    if (!line.empty() && indent + line.size() + 1 + word.size() > width) {
      out += std::string(indent, ' ') + line + "\n";
      line.clear();
    }
    line.append(line.empty() ? "" : " ").append(word);
    text.remove_prefix(space == std::string_view::npos ? text.size() : space + 1);
  }
  return out + std::string(indent, ' ') + line + "\n";
}

std::string section_of(const Option& option) {
  return option.path.substr(0, option.path.find('.'));
}

// Those of all kinds of workloads first, then those of each kind.
std::vector<std::string_view> domains() {
  std::vector<std::string_view> found = {""};
  for (const auto& option : options()) {
    if (std::ranges::find(found, option.domain) == found.end()) {
      found.push_back(option.domain);
    }
  }
  return found;
}

std::string describe_plain() {
  constexpr std::size_t kIndent = 6;
  constexpr std::size_t kWidth = 100;
  std::string out;
  for (const auto domain : domains()) {
    out += domain.empty() ? "" : "\nOf " + std::string(domain) + " models alone:\n";
    for (const auto& option : options()) {
      if (option.domain == domain) {
        out += fmt::format("  {}  ({}; default {})\n{}", option.path, option.form,
                           default_text(option), wrapped(option.help, kIndent, kWidth));
      }
    }
  }
  return out;
}

// A vertical bar would end the cell of the table.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += c == '|' ? "\\|" : std::string(1, c);
  }
  return out;
}

std::string describe_markdown() {
  std::string out;
  std::string section;
  for (const auto& option : options()) {
    if (section_of(option) != section) {
      section = section_of(option);
      out += (out.empty() ? "### `" : "\n### `") + section + "`\n\n";
      out += "| key | takes | default | on resume | meaning |\n|---|---|---|---|---|\n";
    }
    const std::string domain =
        option.domain.empty() ? "" : "Of " + std::string(option.domain) + " models. ";
    out += fmt::format("| `{}` | {} | `{}` | {} | {} |\n", option.path, cell(option.form),
                       cell(default_text(option)),
                       option.on_resume == OnResume::kMayChange ? "may change" : "",
                       cell(domain + option.help));
  }
  return out;
}

}  // namespace

std::string describe_options(ReferenceFormat format) {
  return format == ReferenceFormat::kMarkdown ? describe_markdown() : describe_plain();
}

}  // namespace lorascale::config
