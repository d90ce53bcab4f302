// The order of an exact sum: a binary tree over the leaves of an update. Floating-point addition is
// not associative, so a sum is the same bits on any number of ranks only if its tree is. Ranks own
// contiguous leaves; each adds up the subtrees that lie within its own, and the rest of the same
// tree is done on what they send each other.
//
// The tree of M leaves: neighbours (2i, 2i + 1) of a level are added, left + right, level by level.
// A node without a right neighbour is joined last: M = 7 gives (0..3) + ((4 5) + 6).
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace lorascale::comm {

// The node that covers leaves [index << level, (index + 1) << level).
struct Subtree {
  int level = 0;
  std::int64_t index = 0;
  friend bool operator==(const Subtree&, const Subtree&) = default;
};

// Takes the values of nodes from left to right and adds what the tree adds.
template <typename T>
class LeafTree {
 public:
  using Add = std::function<void(T& left, const T& right)>;
  using Keep = std::function<T(const T& value)>;
  // `add` is left += right. `keep` makes a value that outlives the caller's: a copy, or itself.
  explicit LeafTree(
      Add add, Keep keep = [](const T& value) { return value; })
      : add_(std::move(add)), keep_(std::move(keep)) {}

  void push(Subtree place, const T& value) {
    if (!joins(place)) {
      nodes_.emplace_back(place, keep_(value));
      return;
    }
    add_(nodes_.back().second, value);
    settle();
  }

  // What has been added up so far, from left to right.
  [[nodiscard]] const std::vector<std::pair<Subtree, T>>& nodes() const { return nodes_; }

  // The sum of all; at least one node must have been pushed. Leaves the tree empty.
  T total() {
    LS_ASSERT(!nodes_.empty());
    while (nodes_.size() > 1) {
      add_(nodes_[nodes_.size() - 2].second, nodes_.back().second);
      nodes_.pop_back();
    }
    T sum = std::move(nodes_.back().second);
    nodes_.clear();
    return sum;
  }

 private:
  [[nodiscard]] bool joins(Subtree right) const {
    return !nodes_.empty() && right.index % 2 == 1 &&
           nodes_.back().first == Subtree{right.level, right.index - 1};
  }
  // The last node has become one of the next level, and may now join the one before it.
  void settle() {
    nodes_.back().first = {nodes_.back().first.level + 1, nodes_.back().first.index / 2};
    while (nodes_.size() > 1) {
      const Subtree last = nodes_.back().first;
      if (last.index % 2 == 0 ||
          nodes_[nodes_.size() - 2].first != Subtree{last.level, last.index - 1}) {
        return;
      }
      add_(nodes_[nodes_.size() - 2].second, nodes_.back().second);
      nodes_.pop_back();
      nodes_.back().first = {last.level + 1, last.index / 2};
    }
  }

  Add add_;
  Keep keep_;
  std::vector<std::pair<Subtree, T>> nodes_;
};

// The nodes that a rank with leaves [begin, end) is left with: at most two per level.
std::vector<Subtree> subtrees_of(std::int64_t begin, std::int64_t end);

}  // namespace lorascale::comm
