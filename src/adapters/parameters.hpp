// TrainableParameters: everything that is trained, as one flat fp32 vector with named views.
// Gradient, optimizer state, checkpoint, hash and all-reduce see the flat vector only. Groups are
// contiguous segments.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lorascale::adapters {

struct ParameterEntry {
  std::string name;  // "model.layers.0.self_attn.q_proj.lora_A.weight", or a weight's key
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0;  // elements into the flat vector
  [[nodiscard]] std::int64_t size() const;
};

struct ParameterGroup {
  std::string name;                 // "lora_A", "lora_B", "matrix", "vector"
  std::int64_t begin = 0, end = 0;  // elements
  double lr_ratio = 1.0;            // of the run's rate
  bool decays = true;               // weight decay applies
  bool vectors = false;             // norms and biases alone
  bool starts_at_zero = false;      // as LoRA's B, so that nothing changes at first
};

class TrainableParameters {
 public:
  // Lays the entries of each group out one after the other. Master and gradient start at zero.
  struct GroupSpec {
    ParameterGroup group;  // begin and end are filled in
    std::vector<ParameterEntry> entries;
  };
  TrainableParameters(std::vector<GroupSpec> groups, at::Device device);

  [[nodiscard]] const at::Tensor& master() const { return master_; }      // fp32 [size]
  [[nodiscard]] const at::Tensor& gradient() const { return gradient_; }  // fp32 [size]
  [[nodiscard]] std::int64_t size() const { return master_.size(0); }
  [[nodiscard]] const std::vector<ParameterEntry>& entries() const { return entries_; }
  [[nodiscard]] const std::vector<ParameterGroup>& groups() const { return groups_; }
  // The part of a flat vector that belongs to an entry, in its shape.
  [[nodiscard]] static at::Tensor view(const at::Tensor& flat, const ParameterEntry& entry);

  // What a model of this type computes with in place of an entry: a view of the master in fp32, a
  // rounded copy of it otherwise, which `refresh` brings up to date after each update.
  at::Tensor computed(const ParameterEntry& entry, at::ScalarType type);
  // `rounded` is to follow `master`, a view of master(), in the same way.
  void keep_rounded(at::Tensor rounded, at::Tensor master);
  void refresh() const;

 private:
  std::vector<ParameterEntry> entries_;
  std::vector<ParameterGroup> groups_;
  at::Tensor master_;
  at::Tensor gradient_;
  struct Copy {
    at::Tensor rounded, master;
  };
  std::vector<Copy> copies_;
};

}  // namespace lorascale::adapters
