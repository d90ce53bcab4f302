#include "nn/cpu_attention.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "nn/cpu_kernels.hpp"
#include "nn/cpu_products.hpp"
#include "nn/cpu_rows.hpp"

namespace lorascale::nn {
namespace {

using cpu::kColumns;
using cpu::padded;
using cpu::small_product;

constexpr std::int64_t kQueries = 32;  // of a block
constexpr std::int64_t kPanel = 64;    // keys that stand side by side in a turned matrix

// fp32 numbers, not set to anything.
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : data_(std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count))) {}
  float* get() { return data_.get(); }

 private:
  std::unique_ptr<float[]> data_;
};

// Rows of a matrix with elements of type T, `step` apart.
template <class T>
struct Rows {
  T* data;
  std::int64_t step;
};

void widen(const float* x, float* y, std::int64_t n) {
  std::copy(x, x + n, y);
}
void widen(const at::BFloat16* x, float* y, std::int64_t n) {
  cpu::widen_row(reinterpret_cast<const std::uint16_t*>(x), y, n);
}
void narrow(const float* x, float* y, std::int64_t n) {
  std::copy(x, x + n, y);
}
void narrow(const float* x, at::BFloat16* y, std::int64_t n) {
  cpu::round_row(x, reinterpret_cast<std::uint16_t*>(y), n);
}

// What the kernels of one thread share: sizes, and where the heads of a token stand.
struct Layout {
  AttentionShape shape;
  std::int64_t width;    // of a head, padded
  std::int64_t longest;  // document

  explicit Layout(const AttentionShape& of, std::span<const AttentionRun> runs)
      : shape(of), width(padded(of.head_dim)), longest(0) {
    for (const auto& run : runs) {
      longest = std::max(longest, run.length);
    }
  }
  [[nodiscard]] std::int64_t group() const { return shape.heads / shape.kv_heads; }
  [[nodiscard]] std::int64_t columns() const { return (shape.heads + 2 * shape.kv_heads) * d(); }
  [[nodiscard]] std::int64_t d() const { return shape.head_dim; }
  [[nodiscard]] std::int64_t key_column(std::int64_t kv) const { return (shape.heads + kv) * d(); }
  [[nodiscard]] std::int64_t value_column(std::int64_t kv) const {
    return (shape.heads + shape.kv_heads + kv) * d();
  }
  [[nodiscard]] float scale() const {
    return static_cast<float>(1 / std::sqrt(static_cast<double>(d())));
  }
  // Rows of scores: an odd multiple of kColumns apart, or rows would share lines of the cache.
  [[nodiscard]] std::int64_t score_step() const { return padded(longest + kPanel) | kColumns; }
  [[nodiscard]] std::int64_t matrix() const { return longest * width; }
  [[nodiscard]] std::int64_t panels() const {
    return (longest + kPanel - 1) / kPanel * kPanel * d();
  }
};

// [count, d] of T into fp32 rows of `width`, times `factor`; what pads them is zero.
template <class T>
void load(const Rows<const T>& from, std::int64_t count, const Layout& at, float* to,
          float factor = 1) {
  for (std::int64_t i = 0; i < count; ++i, to += at.width) {
    widen(from.data + i * from.step, to, at.d());
    std::fill(to + at.d(), to + at.width, 0.0F);
    if (factor != 1) {
      cpu::scale_row(to, factor, at.d());
    }
  }
}

// Rows [count, width] turned into panels [d, kPanel], one for kPanel rows; what pads the last one
// is zero.
void turn(const float* rows, std::int64_t count, const Layout& at, float* panels) {
  for (std::int64_t first = 0; first < count; first += kPanel, panels += kPanel * at.d()) {
    const auto some = std::min(kPanel, count - first);
    for (std::int64_t j = 0; j < at.d(); ++j) {
      float* to = panels + j * kPanel;
      for (std::int64_t i = 0; i < some; ++i) {
        to[i] = rows[(first + i) * at.width + j];
      }
      std::fill(to + some, to + kPanel, 0.0F);
    }
  }
}

// load() and turn() in one; `rows` is scratch for the matrix in between.
template <class T>
void load_turned(const Rows<const T>& from, std::int64_t count, const Layout& at, float* rows,
                 float* panels) {
  load<T>(from, count, at, rows);
  turn(rows, count, at, panels);
}

// A block of queries, and the keys that at least one of them sees: all of a document from the first
// to the last.
struct Block {
  std::int64_t first_query, queries;
  std::int64_t first_key, keys;

  Block(std::int64_t first, std::int64_t length, const AttentionShape& shape)
      : first_query(first), queries(std::min(kQueries, length - first)), first_key(0) {
    if (shape.window && first >= *shape.window) {
      first_key = (first - *shape.window + 1) / kPanel * kPanel;
    }
    keys = first + queries - first_key;
  }
  // The keys that a row of the block sees, [begin, end) from first_key on.
  [[nodiscard]] std::int64_t begin(std::int64_t row, const AttentionShape& shape) const {
    return shape.window
               ? std::max<std::int64_t>(0, first_query + row - *shape.window + 1 - first_key)
               : 0;
  }
  [[nodiscard]] std::int64_t end(std::int64_t row) const {
    return first_query + row + 1 - first_key;
  }
};

// scores [queries, keys] = rows (width apart) times the turned matrix's part for the block's keys.
void times_turned(const float* rows, const float* panels, const Block& block, const Layout& at,
                  float* scores) {
  for (std::int64_t key = 0; key < block.keys; key += kPanel) {
    const auto columns = padded(std::min(kPanel, block.keys - key));
    small_product({rows, at.width, 1}, panels + (block.first_key + key) * at.d(), kPanel,
                  scores + key, at.score_step(), block.queries, at.d(), columns, false);
  }
}

// Calls work(first token, length, kv head) for each document and head of keys, spread over threads,
// with what make_scratch() gives each of them.
template <class MakeScratch, class Work>
void for_each_head(std::span<const AttentionRun> runs, const AttentionShape& shape,
                   MakeScratch&& make_scratch, Work&& work) {
  std::vector<std::pair<std::int64_t, std::int64_t>> documents;  // first token, length
  for (const auto& run : runs) {
    for (std::int64_t i = 0; i < run.documents; ++i) {
      documents.emplace_back(run.first_token + i * run.length, run.length);
    }
  }
  const auto items = std::ssize(documents) * shape.kv_heads;
  at::parallel_for(0, items, 1, [&](std::int64_t begin, std::int64_t end) {
    auto scratch = make_scratch();
    for (auto item = begin; item < end; ++item) {
      const auto& [first, length] = documents[static_cast<std::size_t>(item / shape.kv_heads)];
      work(first, length, item % shape.kv_heads, scratch);
    }
  });
}

struct ForwardScratch {
  Scratch keys, values, rows, scores, out;
  explicit ForwardScratch(const Layout& at)
      : keys(at.panels()),
        values(at.matrix()),
        rows(std::max(at.matrix(), kQueries * at.width)),
        scores(kQueries * at.score_step()),
        out(kQueries * at.width) {}
};

// Scores to exp(score - largest) where a row sees, zero elsewhere; returns the rows' sums by log,
// and what makes the rows sum to one.
void softmax(const Block& block, const Layout& at, float* scores, float* log_sums, float* factors) {
  for (std::int64_t i = 0; i < block.queries; ++i) {
    float* row = scores + i * at.score_step();
    const auto begin = block.begin(i, at.shape), end = block.end(i);
    std::fill(row, row + begin, 0.0F);
    std::fill(row + end, row + block.keys, 0.0F);
    const auto sum = cpu::softmax_row(row + begin, end - begin);
    log_sums[i] = sum.log_sum;
    factors[i] = sum.factor;
  }
}

template <class T>
void forward(const at::Tensor& qkv, const CpuAttention& result, const Layout& at,
             std::span<const AttentionRun> runs) {
  const auto* data = qkv.const_data_ptr<T>();
  const auto step = qkv.stride(0);
  auto* out = result.out.mutable_data_ptr<T>();
  auto* log_sums = result.log_sums.mutable_data_ptr<float>();
  const auto work = [&](std::int64_t first, std::int64_t length, std::int64_t kv,
                        ForwardScratch& scratch) {
    const T* document = data + first * step;
    load_turned<T>({document + at.key_column(kv), step}, length, at, scratch.rows.get(),
                   scratch.keys.get());
    load<T>({document + at.value_column(kv), step}, length, at, scratch.values.get());
    float factors[kQueries];
    for (auto head = kv * at.group(); head < (kv + 1) * at.group(); ++head) {
      for (std::int64_t query = 0; query < length; query += kQueries) {
        const Block block(query, length, at.shape);
        load<T>({document + query * step + head * at.d(), step}, block.queries, at,
                scratch.rows.get(), at.scale());
        times_turned(scratch.rows.get(), scratch.keys.get(), block, at, scratch.scores.get());
        softmax(block, at, scratch.scores.get(),
                log_sums + head * result.log_sums.size(1) + first + query, factors);
        small_product({scratch.scores.get(), at.score_step(), 1},
                      scratch.values.get() + block.first_key * at.width, at.width,
                      scratch.out.get(), at.width, block.queries, block.keys, at.width, false);
        for (std::int64_t i = 0; i < block.queries; ++i) {
          float* row = scratch.out.get() + i * at.width;
          cpu::scale_row(row, factors[i], at.d());
          narrow(row, out + (first + query + i) * result.out.size(1) + head * at.d(), at.d());
        }
      }
    }
  };
  for_each_head(
      runs, at.shape, [&] { return ForwardScratch(at); }, work);
}

struct BackwardScratch {
  Scratch keys, turned_keys, turned_values, dkeys, dvalues;
  Scratch queries, gradients, out, weights, dscores, dqueries;
  explicit BackwardScratch(const Layout& at)
      : keys(at.matrix()),
        turned_keys(at.panels()),
        turned_values(at.panels()),
        dkeys(at.matrix()),
        dvalues(at.matrix()),
        queries(kQueries * at.width),
        gradients(kQueries * at.width),
        out(kQueries * at.width),
        weights(kQueries * at.score_step()),
        dscores(kQueries * at.score_step()),
        dqueries(kQueries * at.width) {}
};

// weights: scores -> softmax of them. dscores: gradients of the weights -> those of the scores.
void softmax_backward(const Block& block, const Layout& at, const float* log_sums,
                      BackwardScratch& scratch) {
  for (std::int64_t i = 0; i < block.queries; ++i) {
    float* weights = scratch.weights.get() + i * at.score_step();
    float* dscores = scratch.dscores.get() + i * at.score_step();
    const auto begin = block.begin(i, at.shape), end = block.end(i);
    for (float* row : {weights, dscores}) {
      std::fill(row, row + begin, 0.0F);
      std::fill(row + end, row + block.keys, 0.0F);
    }
    // sum_j weights_j dweights_j = out . dout
    const float mean = cpu::dot_row(scratch.out.get() + i * at.width,
                                    scratch.gradients.get() + i * at.width, at.d());
    cpu::softmax_backward_row(weights + begin, dscores + begin, log_sums[i], mean, end - begin);
  }
}

template <class T>
void backward(const at::Tensor& grad, const at::Tensor& qkv, const CpuAttention& forward,
              const at::Tensor& dqkv, const Layout& at, std::span<const AttentionRun> runs) {
  const auto* data = qkv.const_data_ptr<T>();
  const auto* dout = grad.const_data_ptr<T>();
  const auto* out = forward.out.const_data_ptr<T>();
  const auto* log_sums = forward.log_sums.const_data_ptr<float>();
  auto* dinput = dqkv.mutable_data_ptr<T>();
  const auto step = qkv.stride(0), dstep = dqkv.stride(0), grad_step = grad.stride(0);
  const auto out_step = forward.out.stride(0);
  const auto w = at.width;
  const auto work = [&](std::int64_t first, std::int64_t length, std::int64_t kv,
                        BackwardScratch& scratch) {
    const T* document = data + first * step;
    load_turned<T>({document + at.value_column(kv), step}, length, at, scratch.keys.get(),
                   scratch.turned_values.get());
    load_turned<T>({document + at.key_column(kv), step}, length, at, scratch.keys.get(),
                   scratch.turned_keys.get());
    std::fill_n(scratch.dkeys.get(), length * w, 0.0F);
    std::fill_n(scratch.dvalues.get(), length * w, 0.0F);
    for (auto head = kv * at.group(); head < (kv + 1) * at.group(); ++head) {
      for (std::int64_t query = 0; query < length; query += kQueries) {
        const Block block(query, length, at.shape);
        const auto row = first + query, column = head * at.d();
        load<T>({data + row * step + column, step}, block.queries, at, scratch.queries.get(),
                at.scale());
        load<T>({dout + row * grad_step + column, grad_step}, block.queries, at,
                scratch.gradients.get());
        load<T>({out + row * out_step + column, out_step}, block.queries, at, scratch.out.get());
        times_turned(scratch.queries.get(), scratch.turned_keys.get(), block, at,
                     scratch.weights.get());
        times_turned(scratch.gradients.get(), scratch.turned_values.get(), block, at,
                     scratch.dscores.get());
        softmax_backward(block, at, log_sums + head * forward.log_sums.size(1) + row, scratch);
        const auto keys = block.first_key * w;
        small_product({scratch.weights.get(), 1, at.score_step()}, scratch.gradients.get(), w,
                      scratch.dvalues.get() + keys, w, block.keys, block.queries, w, true);
        small_product({scratch.dscores.get(), 1, at.score_step()}, scratch.queries.get(), w,
                      scratch.dkeys.get() + keys, w, block.keys, block.queries, w, true);
        small_product({scratch.dscores.get(), at.score_step(), 1}, scratch.keys.get() + keys, w,
                      scratch.dqueries.get(), w, block.queries, block.keys, w, false);
        for (std::int64_t i = 0; i < block.queries; ++i) {
          float* gradient = scratch.dqueries.get() + i * w;
          cpu::scale_row(gradient, at.scale(), at.d());
          narrow(gradient, dinput + (row + i) * dstep + column, at.d());
        }
      }
    }
    for (std::int64_t i = 0; i < length; ++i) {
      T* token = dinput + (first + i) * dstep;
      narrow(scratch.dkeys.get() + i * w, token + at.key_column(kv), at.d());
      narrow(scratch.dvalues.get() + i * w, token + at.value_column(kv), at.d());
    }
  };
  for_each_head(
      runs, at.shape, [&] { return BackwardScratch(at); }, work);
}

}  // namespace

CpuAttention cpu_attention(const at::Tensor& qkv, const AttentionShape& shape,
                           std::span<const AttentionRun> runs) {
  const Layout layout(shape, runs);
  CpuAttention result{at::empty({qkv.size(0), shape.heads * shape.head_dim}, qkv.options()),
                      at::empty({shape.heads, qkv.size(0)}, qkv.options().dtype(at::kFloat))};
  with_element_type(qkv, [&]<class T>() { forward<T>(qkv, result, layout, runs); });
  return result;
}

at::Tensor cpu_attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                  const CpuAttention& forward, const AttentionShape& shape,
                                  std::span<const AttentionRun> runs) {
  const Layout layout(shape, runs);
  const at::Tensor rows = grad.stride(1) == 1 ? grad : grad.contiguous();
  at::Tensor dqkv = at::empty({qkv.size(0), layout.columns()}, qkv.options());
  with_element_type(qkv, [&]<class T>() { backward<T>(rows, qkv, forward, dqkv, layout, runs); });
  return dqkv;
}

}  // namespace lorascale::nn
