#include "train/gradient_sum.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "comm/leaf_tree.hpp"
#include "coordinator/facts.hpp"

namespace lorascale::train {
namespace {

class FastSum : public GradientSum {
 public:
  FastSum(World& world, at::Tensor gradient, bool leaf_by_leaf)
      : world_(world),
        gradient_(std::move(gradient)),
        total_(leaf_by_leaf ? at::zeros_like(gradient_) : at::Tensor()) {}

  void begin(std::int64_t /*leaves*/) override {
    gradient_.zero_();
    if (total_.defined()) {
      total_.zero_();
    }
  }
  void take(std::int64_t /*index*/) override {
    if (total_.defined()) {
      total_.add_(gradient_);
      gradient_.zero_();
    }
  }
  [[nodiscard]] std::int64_t kept_elements(std::int64_t /*begin*/,
                                           std::int64_t /*end*/) const override {
    return 0;
  }
  [[nodiscard]] std::int64_t temporary_elements() const override { return 0; }
  void reduce(at::Tensor& facts) override {
    if (total_.defined()) {
      gradient_.copy_(total_);
    }
    world_.device.group_begin();
    all_reduce_sum(world_, gradient_);
    all_reduce_sum(world_, facts);
    world_.device.group_end();
  }

 private:
  World& world_;
  at::Tensor gradient_;
  at::Tensor total_;  // of the leaves so far, where each is looked at by itself
};

using Tree = comm::LeafTree<at::Tensor>;

Tree::Add in_place() {
  return [](at::Tensor& left, const at::Tensor& right) { left.add_(right); };
}

class ExactSum : public GradientSum {
 public:
  ExactSum(World& world, at::Tensor gradient)
      : world_(world),
        gradient_(std::move(gradient)),
        mine_(in_place(), [](const at::Tensor& value) { return value.clone(); }) {}

  void begin(std::int64_t leaves) override {
    leaves_ = leaves;
    mine_ = Tree(in_place(), [](const at::Tensor& value) { return value.clone(); });
    gradient_.zero_();
  }

  void take(std::int64_t index) override {
    mine_.push({0, index}, gradient_);
    gradient_.zero_();
  }

  [[nodiscard]] std::int64_t kept_elements(std::int64_t begin, std::int64_t end) const override {
    return static_cast<std::int64_t>(comm::subtrees_of(begin, end).size()) * gradient_.numel();
  }

  [[nodiscard]] std::int64_t temporary_elements() const override {
    if (world_.host.size() == 1) {
      return 0;
    }
    const Nodes nodes = nodes_of_ranks();
    return nodes.most * (world_.host.size() + 1) * piece_of(nodes);
  }

  void reduce(at::Tensor& facts) override {
    all_reduce_sum(world_, facts);
    if (world_.host.size() == 1) {
      gradient_.copy_(mine_.total());
      return;
    }
    const Nodes nodes = nodes_of_ranks();
    const auto piece = piece_of(nodes);
    for (std::int64_t first = 0; first < gradient_.numel(); first += piece) {
      reduce_piece(nodes.places, nodes.most, first, std::min(piece, gradient_.numel() - first));
    }
  }

 private:
  // Elements gathered at a time, over all ranks and nodes: 64 MiB.
  static constexpr std::int64_t kMostGathered = std::int64_t{1} << 24;

  // Which nodes each rank brings is known to all; the longest list decides how much is sent.
  struct Nodes {
    std::vector<std::vector<comm::Subtree>> places;  // [ranks]
    std::int64_t most = 0;
  };
  [[nodiscard]] Nodes nodes_of_ranks() const {
    Nodes nodes;
    for (int rank = 0; rank < world_.host.size(); ++rank) {
      const auto range = coordinator::leaves_of_rank(leaves_, rank, world_.host.size());
      nodes.places.push_back(comm::subtrees_of(range.begin, range.end));
      nodes.most = std::max(nodes.most, static_cast<std::int64_t>(nodes.places.back().size()));
    }
    return nodes;
  }
  [[nodiscard]] std::int64_t piece_of(const Nodes& nodes) const {
    const auto per_element = nodes.most * world_.host.size();
    return std::clamp<std::int64_t>(kMostGathered / per_element, 1, gradient_.numel());
  }

  void reduce_piece(const std::vector<std::vector<comm::Subtree>>& places, std::int64_t most,
                    std::int64_t first, std::int64_t count) {
    const at::Tensor sent = at::zeros({most, count}, gradient_.options());
    for (std::size_t i = 0; i < mine_.nodes().size(); ++i) {
      sent[static_cast<std::int64_t>(i)].copy_(mine_.nodes()[i].second.narrow(0, first, count));
    }
    at::Tensor all =
        at::empty({static_cast<std::int64_t>(places.size()), most, count}, gradient_.options());
    all_gather(world_, sent, all);
    Tree whole(in_place());
    for (std::size_t rank = 0; rank < places.size(); ++rank) {
      for (std::size_t i = 0; i < places[rank].size(); ++i) {
        whole.push(places[rank][i],
                   all[static_cast<std::int64_t>(rank)][static_cast<std::int64_t>(i)]);
      }
    }
    gradient_.narrow(0, first, count).copy_(whole.total());
  }

  World& world_;
  at::Tensor gradient_;
  Tree mine_;
  std::int64_t leaves_ = 0;
};

}  // namespace

std::unique_ptr<GradientSum> make_gradient_sum(config::Reduction reduction, bool leaf_by_leaf,
                                               World& world, const at::Tensor& gradient) {
  if (reduction == config::Reduction::kExact) {
    return std::make_unique<ExactSum>(world, gradient);
  }
  return std::make_unique<FastSum>(world, gradient, leaf_by_leaf);
}

}  // namespace lorascale::train
