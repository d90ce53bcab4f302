#include "data/leaf_stream.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "data/sampler.hpp"

namespace lorascale::data {
namespace {

constexpr std::size_t kPrefetchedLeaves = 4;

std::vector<std::int64_t> consecutive(std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

}  // namespace

LeafStream::LeafStream(const Dataset& dataset, std::uint64_t seed, bool shuffle)
    : dataset_(dataset), seed_(seed), shuffle_(shuffle), prefetcher_(kPrefetchedLeaves) {}

std::unique_ptr<Leaf> LeafStream::make(const Order& order, std::int64_t first,
                                       std::int64_t count) const {
  auto rows = consecutive(first, count);
  if (!order.rows.empty()) {
    std::ranges::transform(rows, rows.begin(), [&](std::int64_t position) {
      return order.rows[static_cast<std::size_t>(position)];
    });
  } else if (shuffle_) {
    const EpochOrder any(dataset_.rows(), seed_, order.epoch);
    std::ranges::transform(rows, rows.begin(),
                           [&](std::int64_t position) { return any.row_at(position); });
  }
  return dataset_.leaf({seed_, order.epoch}, rows);
}

void LeafStream::begin_update(std::int64_t first_position, std::int64_t samples,
                              std::int64_t leaf_size, std::int64_t leaf_begin,
                              std::int64_t leaf_end) {
  prefetcher_.clear();
  const auto epoch = first_position / dataset_.rows();
  const auto start = first_position % dataset_.rows();
  LS_ASSERT(start + samples <= dataset_.rows());
  if (!order_ || order_->epoch != epoch) {
    auto rows = shuffle_ ? dataset_.shuffled({seed_, epoch}) : std::vector<std::int64_t>();
    LS_ASSERT(rows.empty() || std::ssize(rows) == dataset_.rows());
    order_ = std::make_shared<const Order>(Order{epoch, std::move(rows)});
  }
  for (auto leaf = leaf_begin; leaf < leaf_end; ++leaf) {
    const auto first = leaf * leaf_size;
    const auto count = std::min(leaf_size, samples - first);
    prefetcher_.request(
        [this, order = order_, at = start + first, count] { return make(*order, at, count); });
  }
}

std::unique_ptr<Leaf> LeafStream::next() {
  return prefetcher_.next();
}

std::unique_ptr<Leaf> leaf_in_order(const Dataset& dataset, const SampleKey& key,
                                    std::int64_t first, std::int64_t count) {
  return dataset.leaf(key, consecutive(first, count));
}

std::unique_ptr<Leaf> heaviest_leaf(const Dataset& dataset, const SampleKey& key,
                                    std::int64_t count) {
  return dataset.leaf(key, dataset.heaviest(count));
}

}  // namespace lorascale::data
