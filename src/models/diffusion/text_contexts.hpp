// Captions as a UNet sees them: token ids through one or two text encoders, their outputs side by
// side, and for captions of several rows one row after another (as sd-scripts joins them).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "models/diffusion/kept_tensors.hpp"
#include "models/diffusion/pipeline.hpp"
#include "nn/sample_rows.hpp"

namespace lorascale::models::diffusion {

struct Context {
  at::Tensor words;   // [samples, words, width]
  at::Tensor pooled;  // [samples, width] of the last encoder's first rows; undefined without it
};

struct ContextSaved {
  struct Encoder {
    ClipTextSaved clip;
    std::optional<nn::SampleRows> rows;
  };
  std::vector<Encoder> encoders;
  std::int64_t samples = 0, text_rows = 0;
};

class TextContexts {
 public:
  // `clip_skip`: 0 takes what each encoder's configuration says.
  TextContexts(const Pipeline& pipeline, std::int64_t clip_skip);

  // ids: [samples, encoders, text_rows, positions] on the CPU. `rows`: one a sample, null outside
  // training. With `saved`, keeps what backward needs.
  Context forward(const at::Tensor& ids, const nn::SampleRows* rows, ContextSaved* saved) const;
  // Adds the gradients of what is trained. dpooled may be undefined.
  void backward(const at::Tensor& dwords, const at::Tensor& dpooled, ContextSaved& saved) const;
  [[nodiscard]] bool trains() const;

  // Contexts of frozen encoders.
  [[nodiscard]] KeptTensors& kept_tensors() const { return kept_; }
  // Has those of captions on disk; how many were not there.
  std::int64_t fill(const at::Tensor& ids) const;

 private:
  Context encode(const at::Tensor& ids, const nn::SampleRows* rows, ContextSaved* saved) const;
  // Of frozen encoders, caption by caption.
  Context kept(const at::Tensor& ids) const;

  const Pipeline& pipeline_;
  std::vector<ContextChoice> choices_;
  mutable KeptTensors kept_{std::int64_t{256} << 20};  // by a caption's ids
};

}  // namespace lorascale::models::diffusion
