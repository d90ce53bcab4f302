// Results of frozen parts that are wanted again and again, by what they follow from: kept in memory
// up to a limit, and on disk where there is a place for them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/value_store.hpp"

namespace lorascale::models::diffusion {

class KeptTensors {
 public:
  explicit KeptTensors(std::int64_t most_bytes) : most_bytes_(most_bytes) {}

  // What is on disk is read from there; only fill() writes.
  void keep_on_disk(std::shared_ptr<io::ValueStore> store) { store_ = std::move(store); }
  [[nodiscard]] io::ValueStore* store() const { return store_.get(); }

  // `compute` gives a contiguous tensor of this shape and these options.
  at::Tensor get(const std::string& key, const std::vector<std::int64_t>& shape,
                 const at::TensorOptions& options, const std::function<at::Tensor()>& compute);
  // Has it on disk. False where it was there. There must be a store.
  bool fill(const std::string& key, const std::function<at::Tensor()>& compute);

 private:
  at::Tensor on_disk(const std::string& key, const std::vector<std::int64_t>& shape,
                     const at::TensorOptions& options) const;

  std::int64_t most_bytes_, bytes_ = 0;
  std::unordered_map<std::string, at::Tensor> in_memory_;
  std::shared_ptr<io::ValueStore> store_;  // may be null
};

}  // namespace lorascale::models::diffusion
