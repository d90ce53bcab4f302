#include "nn/cpu_attention.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <type_traits>

#include "nn/cpu_kernels.hpp"
#include "nn/cpu_pair_products.hpp"
#include "nn/cpu_products.hpp"
#include "nn/cpu_rows.hpp"

namespace lorascale::nn {
namespace {

using cpu::kColumns;
using cpu::padded;
using cpu::small_product;

constexpr std::int64_t kQueries = 32;  // of a block
constexpr std::int64_t kPanel = 64;    // keys that stand side by side in a turned matrix

// Numbers of type T, not set to anything.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : data_(std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(count))) {}
  T* get() { return data_.get(); }

 private:
  std::unique_ptr<T[]> data_;
};

// Rows of a matrix with elements of type T, `step` apart.
template <class T>
struct Rows {
  T* data;
  std::int64_t step;
  [[nodiscard]] T* operator[](std::int64_t row) const { return data + row * step; }
};

// How factors of products stand in scratch, and what a product makes of them. A word holds kInner
// numbers that follow each other along the inner dimension. Both kinds have the same functions.

// fp32, whatever the type T of the model's numbers.
template <class T>
struct Fp32Factors {
  using Element = T;
  using Word = float;
  using Left = cpu::LeftFactor;
  static constexpr std::int64_t kInner = 1;

  // A row of n numbers as words, for a matrix whose inner dimension runs along rows.
  static void along(const T* x, Word* to, std::int64_t n) { widen(x, to, n); }
  // Rows x and y (or none) as one row of words, for one whose inner dimension runs across them.
  static void across(const T* x, const T* /*y*/, Word* to, std::int64_t n) { widen(x, to, n); }

  // Left factors of what a softmax left in fp32 rows: as they stand, and turned.
  explicit Fp32Factors(std::int64_t /*row_step*/) {}
  Left left(const Rows<float>& x, std::int64_t /*rows*/, std::int64_t /*n*/) {
    return {x.data, x.step, 1};
  }
  Left left_turned(const Rows<float>& x, std::int64_t /*rows*/, std::int64_t /*n*/) {
    return {x.data, 1, x.step};
  }
};

// Pairs of bf16 (cpu_pair_products.hpp): twice as fast, and softmax and its gradients are rounded
// to bf16 before they meet values, keys and queries.
struct Bf16Factors {
  using Element = at::BFloat16;
  using Word = std::uint32_t;
  using Left = cpu::LeftPairs;
  static constexpr std::int64_t kInner = 2;

  static void along(const Element* x, Word* to, std::int64_t n) {
    std::memcpy(to, x, static_cast<std::size_t>(n) * sizeof(Element));
  }
  static void across(const Element* x, const Element* y, Word* to, std::int64_t n) {
    cpu::pair_rows(bf16_bits(x), y == nullptr ? nullptr : bf16_bits(y), to, n);
  }

  explicit Bf16Factors(std::int64_t row_step) : words_(kQueries / 2 * row_step) {}
  Left left(const Rows<float>& x, std::int64_t rows, std::int64_t n) {
    for (std::int64_t i = 0; i < rows; ++i) {
      auto* row = reinterpret_cast<std::uint16_t*>(words_.get()) + i * x.step;
      cpu::round_row_with_pairs(x[i], row, (n + 1) / 2 * 2);
    }
    return {words_.get(), x.step / 2, 1};
  }
  Left left_turned(const Rows<float>& x, std::int64_t rows, std::int64_t n) {
    for (std::int64_t i = 0; i < rows; i += 2) {
      cpu::pair_rows(x[i], i + 1 < rows ? x[i + 1] : nullptr, words_.get() + i / 2 * x.step, n);
    }
    return {words_.get(), 1, x.step};
  }

 private:
  Scratch<Word> words_;
};

std::int64_t words(std::int64_t numbers, std::int64_t inner) {
  return (numbers + inner - 1) / inner;
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
  // Words of a matrix of all tokens of a document.
  [[nodiscard]] std::int64_t matrix(std::int64_t inner) const {
    return words(longest, inner) * width;
  }
  [[nodiscard]] std::int64_t panels(std::int64_t inner) const {
    return (longest + kPanel - 1) / kPanel * kPanel * (d() / inner);
  }
};

// [count, d] as a left factor, inner dimension d: rows of d / kInner words.
template <class Factors>
typename Factors::Left load_left(const Rows<const typename Factors::Element>& from,
                                 std::int64_t count, const Layout& at, typename Factors::Word* to) {
  const auto step = at.d() / Factors::kInner;
  for (std::int64_t i = 0; i < count; ++i) {
    Factors::along(from[i], to + i * step, at.d());
  }
  return {to, step, 1};
}

// [count, d] as a right factor, inner dimension `count`: rows of `width` words; what pads them is
// zero.
template <class Factors>
void load_right(const Rows<const typename Factors::Element>& from, std::int64_t count,
                const Layout& at, typename Factors::Word* to) {
  for (std::int64_t i = 0; i < count; i += Factors::kInner, to += at.width) {
    Factors::across(from[i], i + 1 < count ? from[i + 1] : nullptr, to, at.d());
    std::fill(to + at.d(), to + at.width, typename Factors::Word{0});
  }
}

// [count, d] turned, as a right factor with inner dimension d: panels [d / kInner, kPanel] of
// words, one for kPanel rows; what pads the last one is zero. `rows`: scratch for a panel's rows.
template <class Factors>
void load_turned(const Rows<const typename Factors::Element>& from, std::int64_t count,
                 const Layout& at, typename Factors::Word* rows, typename Factors::Word* panels) {
  const auto inner = at.d() / Factors::kInner;
  for (std::int64_t first = 0; first < count; first += kPanel, panels += kPanel * inner) {
    const auto some = std::min(kPanel, count - first);
    load_left<Factors>({from[first], from.step}, some, at, rows);
    for (std::int64_t j = 0; j < inner; ++j) {
      auto* to = panels + j * kPanel;
      for (std::int64_t i = 0; i < some; ++i) {
        to[i] = rows[i * inner + j];
      }
      std::fill(to + some, to + kPanel, typename Factors::Word{0});
    }
  }
}

// Fetches rows of a head into the second-level cache while others are worked on: they stand too far
// apart for the CPU to do so by itself, and too many of them share a line of the first level.
template <class T>
void prefetch(const Rows<T>& rows, std::int64_t count, const Layout& at) {
  constexpr int kToWrite = std::is_const_v<T> ? 0 : 1;
  constexpr std::int64_t kLine = 64 / sizeof(T);
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t j = 0; j < at.d(); j += kLine) {
      __builtin_prefetch(rows[i] + j, kToWrite, 2);
    }
  }
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
  // The block after this one of a document's heads up to `last_head`: where it begins, and how many
  // queries it has.
  struct Next {
    std::int64_t query, head, queries;
  };
  [[nodiscard]] Next next(std::int64_t head, std::int64_t last_head, std::int64_t length) const {
    const auto query = first_query + queries;
    if (query < length) {
      return {query, head, std::min(kQueries, length - query)};
    }
    return {0, head + 1, head < last_head ? std::min(kQueries, length) : 0};
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
  // Zeros where a row does not see, up to the last word of the block's keys.
  void hide(float* row, std::int64_t i, const AttentionShape& shape) const {
    std::fill(row, row + begin(i, shape), 0.0F);
    std::fill(row + end(i), row + keys + 1, 0.0F);
  }
};

// scores [queries, keys] = rows times the turned matrix's part for the block's keys.
template <class Factors>
void times_turned(const typename Factors::Left& rows, const typename Factors::Word* panels,
                  const Block& block, const Layout& at, const Rows<float>& scores) {
  const auto inner = at.d() / Factors::kInner;
  for (std::int64_t key = 0; key < block.keys; key += kPanel) {
    const auto columns = padded(std::min(kPanel, block.keys - key));
    small_product(rows, panels + (block.first_key + key) * inner, kPanel, scores.data + key,
                  scores.step, block.queries, inner, columns, false);
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

template <class Factors>
struct ForwardScratch {
  using Word = typename Factors::Word;
  Factors factors;
  Scratch<Word> keys, values, rows;
  Scratch<float> scores, out;
  explicit ForwardScratch(const Layout& at)
      : factors(at.score_step()),
        keys(at.panels(Factors::kInner)),
        values(at.matrix(Factors::kInner)),
        rows(kPanel * at.width),
        scores(kQueries * at.score_step()),
        out(kQueries * at.width) {}
};

// Scores, before they are scaled, to exp(score - largest) where a row sees, zero elsewhere; the
// rows' sums by log, and what makes the rows sum to one.
void softmax(const Block& block, const Layout& at, const Rows<float>& scores, float* log_sums,
             float* factors) {
  for (std::int64_t i = 0; i < block.queries; ++i) {
    block.hide(scores[i], i, at.shape);
    const auto begin = block.begin(i, at.shape);
    const auto sum = cpu::softmax_row(scores[i] + begin, at.scale(), block.end(i) - begin);
    log_sums[i] = sum.log_sum;
    factors[i] = sum.factor;
  }
}

template <class Factors>
void forward(const at::Tensor& qkv, const CpuAttention& result, const Layout& at,
             std::span<const AttentionRun> runs) {
  using T = typename Factors::Element;
  const auto* data = qkv.const_data_ptr<T>();
  const auto step = qkv.stride(0);
  auto* out = result.out.mutable_data_ptr<T>();
  auto* log_sums = result.log_sums.mutable_data_ptr<float>();
  const auto work = [&](std::int64_t first, std::int64_t length, std::int64_t kv,
                        ForwardScratch<Factors>& scratch) {
    const T* document = data + first * step;
    load_turned<Factors>({document + at.key_column(kv), step}, length, at, scratch.rows.get(),
                         scratch.keys.get());
    load_right<Factors>({document + at.value_column(kv), step}, length, at, scratch.values.get());
    const Rows<float> scores{scratch.scores.get(), at.score_step()};
    float factors[kQueries];
    for (auto head = kv * at.group(); head < (kv + 1) * at.group(); ++head) {
      for (std::int64_t query = 0; query < length; query += kQueries) {
        const Block block(query, length, at.shape);
        const auto next = block.next(head, (kv + 1) * at.group() - 1, length);
        prefetch<const T>({document + next.query * step + next.head * at.d(), step}, next.queries,
                          at);
        const Rows<T> result_rows{out + (first + query) * result.out.size(1) + head * at.d(),
                                  result.out.size(1)};
        prefetch(result_rows, block.queries, at);
        const auto queries = load_left<Factors>({document + query * step + head * at.d(), step},
                                                block.queries, at, scratch.rows.get());
        times_turned<Factors>(queries, scratch.keys.get(), block, at, scores);
        softmax(block, at, scores, log_sums + head * result.log_sums.size(1) + first + query,
                factors);
        small_product(scratch.factors.left(scores, block.queries, block.keys),
                      scratch.values.get() + block.first_key / Factors::kInner * at.width, at.width,
                      scratch.out.get(), at.width, block.queries,
                      words(block.keys, Factors::kInner), at.width, false);
        for (std::int64_t i = 0; i < block.queries; ++i) {
          float* row = scratch.out.get() + i * at.width;
          cpu::scale_row(row, factors[i], at.d());
          narrow(row, result_rows[i], at.d());
        }
      }
    }
  };
  for_each_head(
      runs, at.shape, [&] { return ForwardScratch<Factors>(at); }, work);
}

template <class Factors>
struct BackwardScratch {
  using Word = typename Factors::Word;
  Factors factors;
  Scratch<Word> keys, turned_keys, turned_values, rows, queries, gradients;
  Scratch<float> dkeys, dvalues, weights, dscores, dqueries;
  explicit BackwardScratch(const Layout& at)
      : factors(at.score_step()),
        keys(at.matrix(Factors::kInner)),
        turned_keys(at.panels(Factors::kInner)),
        turned_values(at.panels(Factors::kInner)),
        rows(kPanel * at.width),
        queries(kQueries * at.width),
        gradients(kQueries * at.width),
        dkeys(at.matrix(1)),
        dvalues(at.matrix(1)),
        weights(kQueries * at.score_step()),
        dscores(kQueries * at.score_step()),
        dqueries(kQueries * at.width) {}
};

// weights: scores, before they are scaled -> softmax of them. dscores: gradients of the weights ->
// those of the scores. out, dout: the block's rows of a head.
template <class T>
void softmax_backward(const Block& block, const Layout& at, const float* log_sums,
                      const Rows<const T>& out, const Rows<const T>& dout,
                      const Rows<float>& weights, const Rows<float>& dscores) {
  Row<T> out_row(at.d()), dout_row(at.d());
  for (std::int64_t i = 0; i < block.queries; ++i) {
    block.hide(weights[i], i, at.shape);
    block.hide(dscores[i], i, at.shape);
    // sum_j weights_j dweights_j = out . dout
    const float mean =
        cpu::dot_row(out_row.read(out[i], at.d()), dout_row.read(dout[i], at.d()), at.d());
    const auto begin = block.begin(i, at.shape);
    cpu::softmax_backward_row(weights[i] + begin, dscores[i] + begin, at.scale(), log_sums[i], mean,
                              block.end(i) - begin);
  }
}

// Rows [count, width] of gradients, times `factor`, to where they belong.
template <class T>
void store(float* rows, std::int64_t count, const Layout& at, float factor, const Rows<T>& to) {
  for (std::int64_t i = 0; i < count; ++i, rows += at.width) {
    cpu::scale_row(rows, factor, at.d());
    narrow(rows, to[i], at.d());
  }
}

template <class Factors>
void backward(const at::Tensor& grad, const at::Tensor& qkv, const CpuAttention& forward,
              const at::Tensor& dqkv, const Layout& at, std::span<const AttentionRun> runs) {
  using T = typename Factors::Element;
  constexpr auto kInner = Factors::kInner;
  const auto* data = qkv.const_data_ptr<T>();
  const auto* dout = grad.const_data_ptr<T>();
  const auto* out = forward.out.const_data_ptr<T>();
  const auto* log_sums = forward.log_sums.const_data_ptr<float>();
  auto* dinput = dqkv.mutable_data_ptr<T>();
  const auto step = qkv.stride(0), dstep = dqkv.stride(0), grad_step = grad.stride(0);
  const auto out_step = forward.out.stride(0);
  const auto w = at.width;
  const auto work = [&](std::int64_t first, std::int64_t length, std::int64_t kv,
                        BackwardScratch<Factors>& scratch) {
    const T* document = data + first * step;
    const Rows<const T> keys{document + at.key_column(kv), step};
    load_turned<Factors>({document + at.value_column(kv), step}, length, at, scratch.rows.get(),
                         scratch.turned_values.get());
    load_turned<Factors>(keys, length, at, scratch.rows.get(), scratch.turned_keys.get());
    load_right<Factors>(keys, length, at, scratch.keys.get());
    std::fill_n(scratch.dkeys.get(), length * w, 0.0F);
    std::fill_n(scratch.dvalues.get(), length * w, 0.0F);
    const Rows<float> weights{scratch.weights.get(), at.score_step()};
    const Rows<float> dscores{scratch.dscores.get(), at.score_step()};
    for (auto head = kv * at.group(); head < (kv + 1) * at.group(); ++head) {
      for (std::int64_t query = 0; query < length; query += kQueries) {
        const Block block(query, length, at.shape);
        const auto row = first + query, column = head * at.d();
        const Rows<const T> queries{data + row * step + column, step};
        const Rows<const T> gradients{dout + row * grad_step + column, grad_step};
        const auto next = block.next(head, (kv + 1) * at.group() - 1, length);
        const auto next_row = first + next.query, next_column = next.head * at.d();
        prefetch<const T>({data + next_row * step + next_column, step}, next.queries, at);
        prefetch<const T>({dout + next_row * grad_step + next_column, grad_step}, next.queries, at);
        prefetch<const T>({out + next_row * out_step + next_column, out_step}, next.queries, at);
        const Rows<T> dqueries{dinput + row * dstep + column, dstep};
        prefetch(dqueries, block.queries, at);
        times_turned<Factors>(load_left<Factors>(queries, block.queries, at, scratch.rows.get()),
                              scratch.turned_keys.get(), block, at, weights);
        times_turned<Factors>(load_left<Factors>(gradients, block.queries, at, scratch.rows.get()),
                              scratch.turned_values.get(), block, at, dscores);
        softmax_backward<T>(block, at, log_sums + head * forward.log_sums.size(1) + row,
                            {out + row * out_step + column, out_step}, gradients, weights, dscores);
        load_right<Factors>(queries, block.queries, at, scratch.queries.get());
        load_right<Factors>(gradients, block.queries, at, scratch.gradients.get());
        const auto first_key = block.first_key;
        const auto inner = words(block.queries, kInner);
        small_product(scratch.factors.left_turned(weights, block.queries, block.keys),
                      scratch.gradients.get(), w, scratch.dvalues.get() + first_key * w, w,
                      block.keys, inner, w, true);
        small_product(scratch.factors.left_turned(dscores, block.queries, block.keys),
                      scratch.queries.get(), w, scratch.dkeys.get() + first_key * w, w, block.keys,
                      inner, w, true);
        small_product(scratch.factors.left(dscores, block.queries, block.keys),
                      scratch.keys.get() + first_key / kInner * w, w, scratch.dqueries.get(), w,
                      block.queries, words(block.keys, kInner), w, false);
        store(scratch.dqueries.get(), block.queries, at, at.scale(), dqueries);
      }
    }
    T* dtokens = dinput + first * dstep;
    store<T>(scratch.dkeys.get(), length, at, at.scale(), {dtokens + at.key_column(kv), dstep});
    store<T>(scratch.dvalues.get(), length, at, 1, {dtokens + at.value_column(kv), dstep});
  };
  for_each_head(
      runs, at.shape, [&] { return BackwardScratch<Factors>(at); }, work);
}

// work.operator()<Factors>() with those that the CPU is fastest with.
template <class Work>
void with_factors(const at::Tensor& qkv, const AttentionShape& shape, Work&& work) {
  if (qkv.scalar_type() == at::kFloat) {
    work.template operator()<Fp32Factors<float>>();
  } else if (cpu::has_bf16_pairs() && shape.head_dim % Bf16Factors::kInner == 0) {
    work.template operator()<Bf16Factors>();
  } else {
    work.template operator()<Fp32Factors<at::BFloat16>>();
  }
}

}  // namespace

CpuAttention cpu_attention(const at::Tensor& qkv, const AttentionShape& shape,
                           std::span<const AttentionRun> runs) {
  const Layout layout(shape, runs);
  CpuAttention result{at::empty({qkv.size(0), shape.heads * shape.head_dim}, qkv.options()),
                      at::empty({shape.heads, qkv.size(0)}, qkv.options().dtype(at::kFloat))};
  with_factors(qkv, shape, [&]<class F>() { forward<F>(qkv, result, layout, runs); });
  return result;
}

at::Tensor cpu_attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                  const CpuAttention& forward, const AttentionShape& shape,
                                  std::span<const AttentionRun> runs) {
  const Layout layout(shape, runs);
  const at::Tensor rows = grad.stride(1) == 1 ? grad : grad.contiguous();
  at::Tensor dqkv = at::empty({qkv.size(0), layout.columns()}, qkv.options());
  with_factors(qkv, shape, [&]<class F>() { backward<F>(rows, qkv, forward, dqkv, layout, runs); });
  return dqkv;
}

}  // namespace lorascale::nn
