// The decision log: numbered entries, each carrying a digest of itself and of all before it, so
// that a changed, missing or reordered line shows. Entries are kept until they are taken.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "coordinator/facts.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

class DecisionLog {
 public:
  DecisionLog() = default;
  // Continues a log after its entry number `sequence` with digest `chain`.
  DecisionLog(std::int64_t sequence, std::uint64_t chain) : sequence_(sequence), chain_(chain) {}

  // `step`: the update that the decision applies to or follows from; `samples`: seen so far.
  void add(std::int64_t step, std::int64_t samples, const std::string& kind,
           const std::string& reason, const Json& inputs);

  std::vector<Decision> take();
  [[nodiscard]] std::int64_t sequence() const { return sequence_; }  // entries so far
  [[nodiscard]] std::uint64_t chain() const { return chain_; }       // digest of the last one

 private:
  std::int64_t sequence_ = 0;
  std::uint64_t chain_ = kFnvOffset;
  std::vector<Decision> pending_;
};

// One line of decisions.jsonl, without the line feed.
std::string to_json_line(const Decision& decision);
// The inverse; the pair gives back equal bytes. Throws Error(kBadInput).
Decision decision_from_json_line(const std::string& line);

// The index of the first entry that does not follow from those before it, or nothing for an
// untouched log. `start` is the digest before the first entry. Entries cut off at the end do not
// show; compare the last chain for that.
std::optional<std::size_t> first_broken_link(std::span<const Decision> decisions,
                                             std::uint64_t start = kFnvOffset);

}  // namespace lorascale::coordinator
