// A data set as the trainer sees it: a catalogue of rows that knows no order. Const functions are
// pure and may be called from several threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/leaf.hpp"

namespace lorascale::data {

class Dataset {
 public:
  Dataset() = default;
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;
  virtual ~Dataset() = default;

  [[nodiscard]] virtual std::int64_t rows() const = 0;
  // Average; 0 where samples are not made of tokens, and lengths in tokens mean nothing.
  [[nodiscard]] virtual double tokens_per_row() const { return 0; }
  // What may be predicted in an epoch: target tokens, images.
  [[nodiscard]] virtual std::int64_t targets_per_epoch() const = 0;
  // The rows of an epoch as training takes them where data.shuffle says so; empty: any order will
  // do (EpochOrder).
  [[nodiscard]] virtual std::vector<std::int64_t> shuffled(const SampleKey& key) const {
    static_cast<void>(key);
    return {};
  }
  // These rows, in this order.
  [[nodiscard]] virtual std::unique_ptr<Leaf> leaf(const SampleKey& key,
                                                   std::span<const std::int64_t> rows) const = 0;
  // The rows (at most `count`) that take the most memory together: nothing that training asks for
  // is larger.
  [[nodiscard]] virtual std::vector<std::int64_t> heaviest(std::int64_t count) const = 0;

  // Tells apart what is trained on, on two ranks or before and after a stop.
  [[nodiscard]] virtual std::string fingerprint() const = 0;
  // Why a run that began with the data of `fingerprint`, which is not this one's, cannot go on with
  // it, and the remedy; empty where there is nothing more to say than that it is another.
  [[nodiscard]] virtual std::string why_other(const std::string& fingerprint) const {
    static_cast<void>(fingerprint);
    return {};
  }
  // What a person should know about the set, with its path.
  [[nodiscard]] virtual std::string summary() const = 0;
  [[nodiscard]] virtual std::string path() const = 0;
};

}  // namespace lorascale::data
