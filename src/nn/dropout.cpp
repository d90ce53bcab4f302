#include "nn/dropout.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "base/rng.hpp"

namespace lorascale::nn {

at::Tensor dropout_scale(const DropoutKey& key, std::uint32_t module, double p, std::int64_t width,
                         const at::TensorOptions& options) {
  const std::int64_t tokens = key.row_offsets.back();
  at::Tensor scale = at::empty({tokens, width}, at::kFloat);
  float* data = scale.data_ptr<float>();
  const auto philox = philox_key(mix64(key.seed ^ mix64(static_cast<std::uint64_t>(key.epoch))));
  const auto threshold = static_cast<float>(p);
  const auto kept = static_cast<float>(1.0 / (1.0 - p));
  for (std::size_t row = 0; row < key.sample_ids.size(); ++row) {
    const auto sample = static_cast<std::uint64_t>(key.sample_ids[row]);
    const std::int64_t first = std::int64_t{key.row_offsets[row]} * width;
    const std::int64_t count = std::int64_t{key.row_offsets[row + 1]} * width - first;
    at::parallel_for(0, (count + 3) / 4, 8192, [&](std::int64_t begin, std::int64_t end) {
      for (auto block = begin; block < end; ++block) {
        const auto bits = philox4x32(
            {static_cast<std::uint32_t>(block), module, static_cast<std::uint32_t>(sample),
             static_cast<std::uint32_t>(sample >> 32)},
            philox);
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
