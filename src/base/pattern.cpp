#include "base/pattern.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <new>
#include <string>

#include "base/error.hpp"

namespace lorascale {
namespace {

constexpr std::size_t kLongestPattern = 4096;
constexpr std::uint32_t kDeepestGroup = 100;  // the compiler recurses, a few hundred bytes a level
constexpr std::size_t kLargestCode = 128 << 10;

// A step of a match copies a frame, which grows with the groups, and may run over the subject and
// much of the code. So the number of steps allowed follows from what one can cost: 70,000 for a
// usual pattern and name, which take some dozens.
constexpr std::size_t kMostWork = 16 << 20;
constexpr std::size_t kCodePerWork = 8;  // no step passes all of it
constexpr std::uint32_t kDeepestMatch = 50000;
constexpr std::uint32_t kMostHeapKib = 8 << 10;

// The same reading on every build of PCRE2 (newlines), nothing of UTF, no \C. Without the start
// optimisations there is one code less to trust; a match begins at the start in any case.
constexpr std::uint32_t kOptions = PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_UTF |
                                   PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C |
                                   PCRE2_NO_START_OPTIMIZE;

template <auto kFree>
struct Freeing {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Freeing<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freeing<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freeing<pcre2_match_data_free>>;

template <typename Owner>
Owner owned(typename Owner::pointer object) {
  if (object == nullptr) {
    throw std::bad_alloc();
  }
  return Owner(object);
}

PCRE2_SPTR bytes_of(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.empty() ? "" : text.data());
}

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};  // their longest has 120
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

[[noreturn]] void refuse(const std::string& why, std::size_t offset) {
  throw PatternError("is no regular expression that can be used: " + why + " at offset " +
                     std::to_string(offset));
}

std::size_t info_of(const pcre2_code* code, std::uint32_t what) {
  std::size_t value = 0;
  LS_ASSERT(pcre2_pattern_info(code, what, &value) == 0);
  return value;
}

CompileContext compile_limits() {
  auto limits = owned<CompileContext>(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(limits.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(limits.get(), kDeepestGroup);
#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 43
  pcre2_set_max_pattern_compiled_length(limits.get(), kLargestCode);
#endif
  return limits;
}

}  // namespace

Pattern::Pattern(std::string_view text, std::string_view before, std::string_view after) {
  if (text.size() > kLongestPattern) {
    throw PatternError("is no regular expression that can be used: it has " +
                       std::to_string(text.size()) + " bytes, of at most " +
                       std::to_string(kLongestPattern));
  }
  // Python's {0,n}; PCRE2 before 10.43 would look for the braces.
  for (auto at = text.find("{,"); at != text.npos; at = text.find("{,", at + 1)) {
    if (at == 0 || text[at - 1] != '\\') {
      refuse("write {0,n} for {,n}", at);
    }
  }
  const std::string whole = std::string(before) + std::string(text) + std::string(after);
  const auto limits = compile_limits();
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(
      pcre2_compile(bytes_of(whole), whole.size(), kOptions, &error, &offset, limits.get()));
  if (code_ == nullptr) {
    if (error == PCRE2_ERROR_HEAP_FAILED) {
      throw std::bad_alloc();
    }
    refuse(message_of(error),
           std::min(std::max(offset, before.size()) - before.size(), text.size()));
  }
  if (size() > kLargestCode) {  // only where PCRE2 was built for larger ones
    refuse("it is too large", 0);
  }
}

bool Pattern::matches_whole(std::string_view subject) const {
  const auto limits = owned<MatchContext>(pcre2_match_context_create(nullptr));
  const auto step =
      info_of(code_.get(), PCRE2_INFO_FRAMESIZE) + subject.size() + size() / kCodePerWork;
  pcre2_set_match_limit(limits.get(), static_cast<std::uint32_t>(kMostWork / step));
  pcre2_set_depth_limit(limits.get(), kDeepestMatch);
  pcre2_set_heap_limit(limits.get(), kMostHeapKib);
  const auto data = owned<MatchData>(pcre2_match_data_create(1, nullptr));
  const int status =
      pcre2_match(code_.get(), bytes_of(subject), subject.size(), 0, 0, data.get(), limits.get());
  if (status == PCRE2_ERROR_NOMEMORY) {
    throw std::bad_alloc();
  }
  if (status < 0 && status != PCRE2_ERROR_NOMATCH) {
    throw PatternError("is too complex: " + message_of(status));
  }
  return status >= 0;
}

std::size_t Pattern::size() const {
  return info_of(code_.get(), PCRE2_INFO_SIZE);
}

void Pattern::Free::operator()(pcre2_real_code_8* code) const {
  pcre2_code_free(code);
}

}  // namespace lorascale
