// The tensors of a model's folder, read into the slots of a model: names, shapes and types checked,
// data read in parallel straight into the weights where the stored type is the wanted one. Failures
// are Error(kBadInput) with the file, the tensor and the remedy.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "io/model_reader.hpp"
#include "nn/parameter_slot.hpp"

namespace lorascale::models {

class WeightsReader {
 public:
  // What a tensor of the model is called in the file.
  using StoredName = std::function<std::string(const std::string&)>;

  explicit WeightsReader(const std::filesystem::path& file_or_folder);
  void name_by(StoredName stored) { stored_ = std::move(stored); }

  [[nodiscard]] const io::ModelReader& files() const { return files_; }
  [[nodiscard]] const std::string& where() const { return where_; }
  [[nodiscard]] std::string stored(const std::string& key) const {
    return stored_ ? stored_(key) : key;
  }
  // Of a tensor of the model; throws where there is none.
  [[nodiscard]] const io::TensorInfo& at(const std::string& key) const;
  [[nodiscard]] at::ScalarType type_of(const io::TensorInfo& info) const;

  // Every tensor of the slots is there, of its shape and of a known type.
  void check(const std::vector<nn::ParameterSlot>& slots) const;
  // A tensor of the file that is neither in the slots nor known to be harmless would change the
  // result.
  void refuse_others(const std::vector<nn::ParameterSlot>& slots,
                     const std::function<bool(const std::string&)>& harmless) const;
  // Fills the slots' values, slot by slot, so that no more than one of them is staged at a time.
  void read(const std::vector<nn::ParameterSlot>& slots) const;
  // One whole tensor, by its name in the file and in its stored type.
  [[nodiscard]] at::Tensor tensor(const std::string& name) const;

 private:
  void read_slot(const nn::ParameterSlot& slot) const;

  io::ModelReader files_;
  std::string where_;
  StoredName stored_;
};

}  // namespace lorascale::models
