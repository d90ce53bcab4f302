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

at::Tensor rank_dropout_scale(const SampleRows& rows, std::uint32_t draw, double rank_p,
                              double module_p, std::int64_t rank,
                              const at::TensorOptions& options) {
  // Numbers of their own, beside those of dropout_scale().
  const SampleKey key{mix64(rows.key.seed ^ 0x72616E6BU /* "rank" */), rows.key.epoch};
  at::Tensor scale = at::empty({rows.offsets.back(), rank}, at::kFloat);
  float* data = scale.data_ptr<float>();
  const auto kept = static_cast<float>(1.0 / (1.0 - rank_p));
  for (std::size_t sample = 0; sample < rows.sample_ids.size(); ++sample) {
    const auto stream = key.stream(rows.sample_ids[sample], draw);
    const bool dropped = uniform24(stream.block(0)[0]) < static_cast<float>(module_p);
    const auto first = std::int64_t{rows.offsets[sample]};
    const auto last = std::int64_t{rows.offsets[sample + 1]};
    for (std::int64_t i = 0; i < rank && first < last; ++i) {
      const auto bits = stream.block(static_cast<std::uint32_t>(1 + i / 4));
      const bool out =
          dropped || uniform24(bits[static_cast<std::size_t>(i % 4)]) < static_cast<float>(rank_p);
      for (auto row = first; row < last; ++row) {
        data[row * rank + i] = out ? 0.0F : kept;
      }
    }
  }
  return scale.to(options);
}

}  // namespace lorascale::nn
