// Factors of a LoRA in files of whatever form.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "io/safetensors.hpp"
#include "io/safetensors_writer.hpp"

namespace lorascale::adapters {

// fp32 on the CPU: a matrix, or of a convolution four dimensions, none of them 0. Error(kBadInput)
// where it is neither, of another type than F32, F16 and BF16, or not finite.
at::Tensor read_factor(const io::SafetensorsFile& file, const std::string& key);
// The same of vectors: [n, width], or one by itself.
at::Tensor read_rows(const io::SafetensorsFile& file, const std::string& key);
// Numbers of DoRA, one for each output of a layer, in whatever shape, as fp32 [out] on the CPU.
// Errors as above.
at::Tensor read_vector(const io::SafetensorsFile& file, const std::string& key);
// Numbers of one line, in whatever shape with one side above 1, as fp32 [n] on the CPU. Errors as
// above.
at::Tensor read_line(const io::SafetensorsFile& file, const std::string& key);
// A tensor of one number, whole ones of I64 included. Error(kBadInput) where it is none or not
// finite.
double read_number(const io::SafetensorsFile& file, const std::string& key);

// What all matrices of a file are stored as; fp32 where they differ.
at::ScalarType stored_type(const io::SafetensorsFile& file);

// Whether a type holds these numbers as they are.
bool is_exact_in(at::ScalarType type, const at::Tensor& value);

// Tensors on their way into a file, each rounded once to the file's type.
class FactorsToWrite {
 public:
  explicit FactorsToWrite(at::ScalarType type) : type_(type) {}

  // Error(kBadInput) where a number does not fit into the type.
  void add(const std::string& key, const at::Tensor& value);
  void add_as_is(const std::string& key, const at::Tensor& value);  // in its own type
  [[nodiscard]] const std::vector<io::TensorToWrite>& tensors() const { return tensors_; }

 private:
  at::ScalarType type_;
  std::vector<at::Tensor> kept_;
  std::vector<io::TensorToWrite> tensors_;
};

}  // namespace lorascale::adapters
