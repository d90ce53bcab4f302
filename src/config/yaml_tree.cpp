#include "config/yaml_tree.hpp"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <new>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "config/numbers.hpp"
#include "config/text.hpp"

namespace lorascale::config {
namespace {

constexpr std::size_t kMaxDepth = 8;      // a configuration needs 4
constexpr std::size_t kMaxNodes = 20000;  // keys and values together

// Builds the tree from parser events; yaml-cpp's own Node would follow aliases and keep the first
// of two equal keys without a word.
class TreeBuilder : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) {
      throw YamlError(line_of(mark), "a second document begins here; keep one per file");
    }
  }
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string& name) override {
    throw YamlError(line_of(mark), "anchor " + in_quotes("&" + name) +
                                       " is not allowed; write the value out (or quote the text)");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw YamlError(line_of(mark),
                    "an alias (*name) is not allowed; write the value out (or quote the text)");
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    YamlNode node;
    node.line = line_of(mark);
    add(std::move(node));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    refuse_tag(mark, tag);
    if (find_invalid_utf8(value) || value.find('\0') != std::string::npos) {
      throw YamlError(line_of(mark),
                      "the text " + in_quotes(value) + " holds an escape that is not a character");
    }
    YamlNode node = YamlNode::scalar(value, line_of(mark));
    node.quoted = tag == "!";
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, YamlNode::Kind::kSequence);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

  YamlNode take_root() { return std::move(root_); }

 private:
  struct Frame {
    YamlNode node;
    std::optional<YamlEntry> pending;  // key seen, value to come
    std::unordered_map<std::string, int> lines_of_keys;
  };

  // Null marks, which events of empty nodes may carry, have line -1.
  static int line_of(const YAML::Mark& mark) { return std::max(mark.line, 0) + 1; }

  static void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") {
      throw YamlError(line_of(mark), "tag " + in_quotes(tag) + " is not allowed; remove it");
    }
  }

  void open(const YAML::Mark& mark, const std::string& tag, YamlNode::Kind kind) {
    refuse_tag(mark, tag);
    if (frames_.size() >= kMaxDepth) {
      throw YamlError(line_of(mark),
                      "nested more than " + std::to_string(kMaxDepth) + " levels deep");
    }
    if (!frames_.empty() && expects_key(frames_.back())) {
      throw YamlError(
          line_of(mark),
          "a key must be a plain word, not a list or a map (or a bracket is not closed)");
    }
    frames_.push_back({});
    frames_.back().node.kind = kind;
    frames_.back().node.line = line_of(mark);
  }

  void close() {
    YamlNode node = std::move(frames_.back().node);
    frames_.pop_back();
    add(std::move(node));
  }

  static bool expects_key(const Frame& frame) {
    return frame.node.kind == YamlNode::Kind::kMap && !frame.pending;
  }

  void add(YamlNode node) {
    if (++nodes_ > kMaxNodes) {
      throw YamlError(node.line, "more than " + std::to_string(kMaxNodes) + " keys and values");
    }
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = frames_.back();
    if (frame.node.kind == YamlNode::Kind::kSequence) {
      frame.node.items.push_back(std::move(node));
    } else if (!frame.pending) {
      begin_entry(frame, node);
    } else {
      frame.pending->value = std::move(node);
      frame.node.entries.push_back(std::move(*frame.pending));
      frame.pending.reset();
    }
  }

  static void begin_entry(Frame& frame, const YamlNode& key) {
    if (key.kind != YamlNode::Kind::kScalar || key.text.empty()) {
      throw YamlError(key.line, "a key is missing or null here");
    }
    const auto [known, fresh] = frame.lines_of_keys.emplace(key.text, key.line);
    if (!fresh) {
      throw YamlError(key.line, fmt::format("key {} appears twice (first in line {}); keep one",
                                            in_quotes(key.text), known->second));
    }
    frame.pending = YamlEntry{key.text, key.line, {}};
  }

  std::vector<Frame> frames_;
  YamlNode root_;
  std::size_t nodes_ = 0;
  int documents_ = 0;
};

// Bytes that no text file holds, or that yaml-cpp would misread (it takes 0x04 as the end of the
// file and guesses UTF-16 from NULs), and tabs where YAML wants spaces.
void check_bytes(std::string_view text) {
  constexpr std::size_t kMaxBrackets = 20000;  // bounds the scanner's look-ahead on "[[[[..."
  if (text.size() > kMaxConfigBytes) {
    throw YamlError(1, "larger than 1 MiB, which no configuration is");
  }
  const std::optional<std::size_t> broken = find_invalid_utf8(text);
  int line = 1;
  std::size_t brackets = 0;
  bool indenting = true;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    if (broken == i) {
      throw YamlError(line, "not UTF-8; save the file as UTF-8 text");
    }
    if ((byte < 0x20 && c != '\t' && c != '\n' && c != '\r') || byte == 0x7F) {
      throw YamlError(line, "holds the control byte " + in_quotes(text.substr(i, 1)) +
                                "; is this a text file?");
    }
    if (c == '\t' && indenting) {
      throw YamlError(line, "indented with a tab; use spaces");
    }
    if ((c == '[' || c == '{') && ++brackets > kMaxBrackets) {
      throw YamlError(line, "more than " + std::to_string(kMaxBrackets) + " brackets");
    }
    indenting = c == '\n' || c == '\r' || (indenting && c == ' ');
    line += c == '\n' ? 1 : 0;
  }
}

// yaml-cpp's messages speak of tokens; these say what to do.
std::string remedy_for(const std::string& message) {
  if (message == YAML::ErrorMsg::UNKNOWN_TOKEN || message == YAML::ErrorMsg::UNKNOWN_ANCHOR ||
      message == YAML::ErrorMsg::ALIAS_NOT_FOUND || message == YAML::ErrorMsg::ANCHOR_NOT_FOUND) {
    return " (put text that begins with a special character into quotes)";
  }
  if (message == YAML::ErrorMsg::EOF_IN_SCALAR) {
    return " (a quote is not closed)";
  }
  if (message == YAML::ErrorMsg::END_OF_MAP_FLOW || message == YAML::ErrorMsg::END_OF_SEQ_FLOW) {
    return " (a bracket is not closed)";
  }
  if (message == YAML::ErrorMsg::MAP_VALUE) {
    return " (text with ': ' inside needs quotes)";
  }
  if (message == YAML::ErrorMsg::END_OF_MAP || message == YAML::ErrorMsg::END_OF_SEQ) {
    return " (check the indentation: keys of one section start in the same column)";
  }
  return "";
}

}  // namespace

YamlNode YamlNode::scalar(std::string text, int line) {
  YamlNode node;
  node.kind = Kind::kScalar;
  node.line = line;
  node.text = std::move(text);
  return node;
}

YamlNode YamlNode::sequence(std::vector<YamlNode> items, int line) {
  YamlNode node;
  node.kind = Kind::kSequence;
  node.line = line;
  node.items = std::move(items);
  return node;
}

YamlNode parse_yaml(std::string_view text) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) {
    text.remove_prefix(kByteOrderMark.size());
  }
  check_bytes(text);
  TreeBuilder builder;
  try {
    // yaml-cpp takes the end of the file for the end of an open quote if the last byte is a line
    // break; a comment behind it makes that the error it is.
    std::istringstream stream{std::string(text) + "\n#"};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    throw YamlError(std::max(error.mark.line, 0) + 1,
                    "not valid YAML: " + error.msg + remedy_for(error.msg));
  }
  return builder.take_root();
}

std::string yaml_text(std::string_view text) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  const bool bare =
      !text.empty() && is_letter(text.front()) && !is_reserved_word(text) &&
      std::all_of(text.begin(), text.end(), [&](char c) {
        return is_letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '/' || c == '-';
      });
  if (bare) {
    return std::string(text);
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += "\\x";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace lorascale::config
