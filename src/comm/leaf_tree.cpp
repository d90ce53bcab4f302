#include "comm/leaf_tree.hpp"

namespace lorascale::comm {

std::vector<Subtree> subtrees_of(std::int64_t begin, std::int64_t end) {
  LeafTree<char> tree([](char&, const char&) {});
  for (std::int64_t leaf = begin; leaf < end; ++leaf) {
    tree.push({0, leaf}, 0);
  }
  std::vector<Subtree> places;
  for (const auto& [place, value] : tree.nodes()) {
    places.push_back(place);
  }
  return places;
}

}  // namespace lorascale::comm
