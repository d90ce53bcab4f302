#include "nn/dropout.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

namespace lorascale::nn {

at::Tensor dropout_scale(const SampleRows& rows, std::uint32_t draw, double p, std::int64_t width,
                         const at::TensorOptions& options) {
  at::Tensor scale = at::empty({rows.offsets.back(), width}, at::kFloat);
  float* data = scale.data_ptr<float>();
  const auto threshold = static_cast<float>(p);
  const auto kept = static_cast<float>(1.0 / (1.0 - p));
  for (std::size_t sample = 0; sample < rows.sample_ids.size(); ++sample) {
    const auto stream = rows.key.stream(rows.sample_ids[sample], draw);
    const std::int64_t first = std::int64_t{rows.offsets[sample]} * width;
    const std::int64_t count = std::int64_t{rows.offsets[sample + 1]} * width - first;
    at::parallel_for(0, (count + 3) / 4, 8192, [&](std::int64_t begin, std::int64_t end) {
      for (auto block = begin; block < end; ++block) {
        const auto bits = stream.block(static_cast<std::uint32_t>(block));
        const auto last = std::min<std::int64_t>(4, count - 4 * block);
        for (std::int64_t i = 0; i < last; ++i) {
          data[first + 4 * block + i] =
              uniform24(bits[static_cast<std::size_t>(i)]) < threshold ? 0.0F : kept;
        }
      }
    });
  }
  return scale.to(options);
}

}  // namespace lorascale::nn
