// The leaves of a run in their order, prepared in the background: the order of an epoch follows
// from (seed, epoch) alone. For one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/dataset.hpp"
#include "data/prefetcher.hpp"

namespace lorascale::data {

class LeafStream {
 public:
  // `seed` is the run's: order, where it is shuffled, and what is random in the samples. The data
  // set must outlive the stream.
  LeafStream(const Dataset& dataset, std::uint64_t seed, bool shuffle);

  // Announces an update: samples [first_position, + samples) of the run, all of one epoch, of which
  // this rank does leaves [leaf_begin, leaf_end) of `leaf_size`. next() then yields them in order.
  // What an update that was given up has left over is forgotten.
  void begin_update(std::int64_t first_position, std::int64_t samples, std::int64_t leaf_size,
                    std::int64_t leaf_begin, std::int64_t leaf_end);
  std::unique_ptr<Leaf> next();

 private:
  // An epoch's rows where the data set has an order of its own.
  struct Order {
    std::int64_t epoch = -1;
    std::vector<std::int64_t> rows;
  };
  [[nodiscard]] std::unique_ptr<Leaf> make(const Order& order, std::int64_t first,
                                           std::int64_t count) const;

  const Dataset& dataset_;
  std::uint64_t seed_;
  bool shuffle_;
  std::shared_ptr<const Order> order_;
  Prefetcher<std::unique_ptr<Leaf>> prefetcher_;  // last: its thread uses the rest
};

// Rows [first, first + count) in the order of the file.
std::unique_ptr<Leaf> leaf_in_order(const Dataset& dataset, const SampleKey& key,
                                    std::int64_t first, std::int64_t count);
// The leaf of `count` samples that takes the most memory.
std::unique_ptr<Leaf> heaviest_leaf(const Dataset& dataset, const SampleKey& key,
                                    std::int64_t count);

}  // namespace lorascale::data
