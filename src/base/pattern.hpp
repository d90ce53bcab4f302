// Regular expressions out of configurations and files, as PCRE2 reads them, which is close to
// Python's re. They may be hostile: length, nesting and compiled size are limited, and so are
// steps, depth and memory of each match, so that none takes the stack, the memory or more than a
// moment. Text is bytes. Throws PatternError, and std::bad_alloc where memory ends.
#pragma once

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string_view>

struct pcre2_real_code_8;  // pcre2.h wants its macros set first

namespace lorascale {

// what() goes on after the pattern's text: "is no regular expression: missing closing parenthesis
// at offset 4", "is too complex: match limit exceeded".
class PatternError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Pattern {
 public:
  // `before` and `after` are expressions to put around `text`; offsets in errors are those of
  // `text`.
  explicit Pattern(std::string_view text, std::string_view before = "",
                   std::string_view after = "");

  // Like Python's re.fullmatch(). Any number of threads may ask at once.
  [[nodiscard]] bool matches_whole(std::string_view subject) const;

  // Bytes of the compiled form.
  [[nodiscard]] std::size_t size() const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace lorascale
