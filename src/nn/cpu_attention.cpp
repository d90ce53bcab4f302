#include "nn/cpu_attention.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "nn/cpu_attention_factors.hpp"
#include "nn/cpu_kernels.hpp"
#include "nn/cpu_pair_products.hpp"
#include "nn/cpu_products.hpp"
#include "nn/cpu_rows.hpp"

namespace lorascale::nn {
namespace {

using cpu::kColumns;
using cpu::padded;
using cpu::small_product;
using factors::Bf16Factors;
using factors::Fp32Factors;
using factors::kQueries;
using factors::Rows;
using factors::Scratch;
using factors::words;

constexpr std::int64_t kPanel = 64;  // keys that stand side by side in a turned matrix

// Queries, and the keys that they may see: those up to themselves, or all.
struct Document {
  std::int64_t first_query, queries;
  std::int64_t first_key, keys;
};

// What the kernels of one thread share: the documents and their sizes.
struct Layout {
  AttentionShape shape;
  bool causal;
  std::vector<Document> documents;
  std::int64_t width;    // of a head, padded
  std::int64_t longest;  // document's keys

  Layout(const AttentionShape& of, bool is_causal, std::vector<Document> all)
      : shape(of),
        causal(is_causal),
        documents(std::move(all)),
        width(padded(of.head_dim)),
        longest(0) {
    for (const auto& document : documents) {
      longest = std::max(longest, document.keys);
    }
  }
  [[nodiscard]] std::int64_t group() const { return shape.heads / shape.kv_heads; }
  [[nodiscard]] std::int64_t d() const { return shape.head_dim; }
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
  bool causal;

  Block(std::int64_t first, const Document& document, const Layout& at)
      : first_query(first),
        queries(std::min(kQueries, document.queries - first)),
        first_key(0),
        keys(document.keys),
        causal(at.causal) {
    if (at.shape.window && first >= *at.shape.window) {
      first_key = (first - *at.shape.window + 1) / kPanel * kPanel;
    }
    if (causal) {
      keys = first + queries - first_key;
    }
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
    return causal ? first_query + row + 1 - first_key : keys;
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

// Calls work(document, kv head, scratch) for each document and head of keys, spread over threads,
// with what make_scratch() gives each of them.
template <class MakeScratch, class Work>
void for_each_head(const Layout& at, MakeScratch&& make_scratch, Work&& work) {
  const auto items = std::ssize(at.documents) * at.shape.kv_heads;
  at::parallel_for(0, items, 1, [&](std::int64_t begin, std::int64_t end) {
    auto scratch = make_scratch();
    for (auto item = begin; item < end; ++item) {
      work(at.documents[static_cast<std::size_t>(item / at.shape.kv_heads)],
           item % at.shape.kv_heads, scratch);
    }
  });
}

// Heads of queries, keys, values or their gradients, side by side in each token's row.
template <class T>
struct Heads {
  T* data;  // null: of gradients, they are not wanted
  std::int64_t step;
  [[nodiscard]] Rows<T> of(std::int64_t token, std::int64_t head, const Layout& at) const {
    return {data + token * step + head * at.d(), step};
  }
};

template <class T>
Heads<const T> heads_of(const at::Tensor& rows) {
  return {rows.const_data_ptr<T>(), rows.stride(0)};
}
template <class T>
Heads<T> heads_to(const at::Tensor& rows) {
  return {rows.defined() ? rows.mutable_data_ptr<T>() : nullptr,
          rows.defined() ? rows.stride(0) : 0};
}

// Each [tokens, heads * head_dim], perhaps a part of wider rows.
struct Inputs {
  at::Tensor q, k, v;
};

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
void forward(const Inputs& inputs, const CpuAttention& result, const Layout& at) {
  using T = typename Factors::Element;
  const auto q = heads_of<T>(inputs.q), k = heads_of<T>(inputs.k), v = heads_of<T>(inputs.v);
  const auto out = heads_to<T>(result.out);
  auto* log_sums = result.log_sums.mutable_data_ptr<float>();
  const auto work = [&](const Document& document, std::int64_t kv,
                        ForwardScratch<Factors>& scratch) {
    load_turned<Factors>(k.of(document.first_key, kv, at), document.keys, at, scratch.rows.get(),
                         scratch.keys.get());
    load_right<Factors>(v.of(document.first_key, kv, at), document.keys, at, scratch.values.get());
    const Rows<float> scores{scratch.scores.get(), at.score_step()};
    float factors[kQueries];
    for (auto head = kv * at.group(); head < (kv + 1) * at.group(); ++head) {
      for (std::int64_t query = 0; query < document.queries; query += kQueries) {
        const Block block(query, document, at);
        const auto next = block.next(head, (kv + 1) * at.group() - 1, document.queries);
        prefetch(q.of(document.first_query + next.query, next.head, at), next.queries, at);
        const auto row = document.first_query + query;
        const auto result_rows = out.of(row, head, at);
        prefetch(result_rows, block.queries, at);
        const auto queries =
            load_left<Factors>(q.of(row, head, at), block.queries, at, scratch.rows.get());
        times_turned<Factors>(queries, scratch.keys.get(), block, at, scores);
        softmax(block, at, scores, log_sums + head * result.log_sums.size(1) + row, factors);
        small_product(scratch.factors.left(scores, block.queries, block.keys),
                      scratch.values.get() + block.first_key / Factors::kInner * at.width, at.width,
                      scratch.out.get(), at.width, block.queries,
                      words(block.keys, Factors::kInner), at.width, false);
        for (std::int64_t i = 0; i < block.queries; ++i) {
          float* to = scratch.out.get() + i * at.width;
          cpu::scale_row(to, factors[i], at.d());
          narrow(to, result_rows[i], at.d());
        }
      }
    }
  };
  for_each_head(
      at, [&] { return ForwardScratch<Factors>(at); }, work);
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

// Those of keys and values may be undefined.
struct Gradients {
  at::Tensor q, k, v;
};

template <class Factors>
void backward(const at::Tensor& grad, const Inputs& inputs, const CpuAttention& forward,
              const Gradients& gradients, const Layout& at) {
  using T = typename Factors::Element;
  constexpr auto kInner = Factors::kInner;
  const auto q = heads_of<T>(inputs.q), k = heads_of<T>(inputs.k), v = heads_of<T>(inputs.v);
  const auto dout = heads_of<T>(grad), out = heads_of<T>(forward.out);
  const auto dq = heads_to<T>(gradients.q), dk = heads_to<T>(gradients.k),
             dv = heads_to<T>(gradients.v);
  const auto* log_sums = forward.log_sums.const_data_ptr<float>();
  const auto w = at.width;
  const auto work = [&](const Document& document, std::int64_t kv,
                        BackwardScratch<Factors>& scratch) {
    const auto keys = k.of(document.first_key, kv, at);
    load_turned<Factors>(v.of(document.first_key, kv, at), document.keys, at, scratch.rows.get(),
                         scratch.turned_values.get());
    load_turned<Factors>(keys, document.keys, at, scratch.rows.get(), scratch.turned_keys.get());
    load_right<Factors>(keys, document.keys, at, scratch.keys.get());
    std::fill_n(scratch.dkeys.get(), document.keys * w, 0.0F);
    std::fill_n(scratch.dvalues.get(), document.keys * w, 0.0F);
    const Rows<float> weights{scratch.weights.get(), at.score_step()};
    const Rows<float> dscores{scratch.dscores.get(), at.score_step()};
    for (auto head = kv * at.group(); head < (kv + 1) * at.group(); ++head) {
      for (std::int64_t query = 0; query < document.queries; query += kQueries) {
        const Block block(query, document, at);
        const auto row = document.first_query + query;
        const auto queries = q.of(row, head, at), gradient_rows = dout.of(row, head, at);
        const auto next = block.next(head, (kv + 1) * at.group() - 1, document.queries);
        const auto next_row = document.first_query + next.query;
        for (const auto& of : {q, dout, out}) {
          prefetch(of.of(next_row, next.head, at), next.queries, at);
        }
        const auto dqueries = dq.of(row, head, at);
        prefetch(dqueries, block.queries, at);
        times_turned<Factors>(load_left<Factors>(queries, block.queries, at, scratch.rows.get()),
                              scratch.turned_keys.get(), block, at, weights);
        times_turned<Factors>(
            load_left<Factors>(gradient_rows, block.queries, at, scratch.rows.get()),
            scratch.turned_values.get(), block, at, dscores);
        softmax_backward<T>(block, at, log_sums + head * forward.log_sums.size(1) + row,
                            out.of(row, head, at), gradient_rows, weights, dscores);
        const auto first_key = block.first_key;
        const auto inner = words(block.queries, kInner);
        if (dv.data != nullptr) {
          load_right<Factors>(queries, block.queries, at, scratch.queries.get());
          load_right<Factors>(gradient_rows, block.queries, at, scratch.gradients.get());
          small_product(scratch.factors.left_turned(weights, block.queries, block.keys),
                        scratch.gradients.get(), w, scratch.dvalues.get() + first_key * w, w,
                        block.keys, inner, w, true);
          small_product(scratch.factors.left_turned(dscores, block.queries, block.keys),
                        scratch.queries.get(), w, scratch.dkeys.get() + first_key * w, w,
                        block.keys, inner, w, true);
        }
        small_product(scratch.factors.left(dscores, block.queries, block.keys),
                      scratch.keys.get() + first_key / kInner * w, w, scratch.dqueries.get(), w,
                      block.queries, words(block.keys, kInner), w, false);
        store(scratch.dqueries.get(), block.queries, at, at.scale(), dqueries);
      }
    }
    if (dv.data != nullptr) {
      store<T>(scratch.dkeys.get(), document.keys, at, at.scale(),
               dk.of(document.first_key, kv, at));
      store<T>(scratch.dvalues.get(), document.keys, at, 1, dv.of(document.first_key, kv, at));
    }
  };
  for_each_head(
      at, [&] { return BackwardScratch<Factors>(at); }, work);
}

// work.operator()<Factors>() with those that the CPU is fastest with.
template <class Work>
void with_factors(at::ScalarType type, const AttentionShape& shape, Work&& work) {
  if (type == at::kFloat) {
    work.template operator()<Fp32Factors<float>>();
  } else if (cpu::has_bf16_pairs() && shape.head_dim % Bf16Factors::kInner == 0) {
    work.template operator()<Bf16Factors>();
  } else {
    work.template operator()<Fp32Factors<at::BFloat16>>();
  }
}

// [tokens, (heads + 2 kv_heads) * head_dim] -> its three parts.
template <class Three>
Three parts_of(const at::Tensor& qkv, const AttentionShape& shape) {
  const auto width = shape.heads * shape.head_dim, kv_width = shape.kv_heads * shape.head_dim;
  return {qkv.narrow(1, 0, width), qkv.narrow(1, width, kv_width),
          qkv.narrow(1, width + kv_width, kv_width)};
}

Layout layout_of(const AttentionShape& shape, std::span<const AttentionRun> runs) {
  std::vector<Document> documents;
  for (const auto& run : runs) {
    for (std::int64_t i = 0; i < run.documents; ++i) {
      const auto first = run.first_token + i * run.length;
      documents.push_back({first, run.length, first, run.length});
    }
  }
  return {shape, /*causal=*/true, std::move(documents)};
}

Layout layout_of(const CrossAttentionShape& shape) {
  std::vector<Document> documents;
  for (std::int64_t i = 0; i < shape.samples; ++i) {
    documents.push_back({i * shape.queries, shape.queries, i * shape.keys, shape.keys});
  }
  return {{shape.heads, shape.heads, shape.head_dim, std::nullopt},
          /*causal=*/false,
          std::move(documents)};
}

template <class Three>
Three parts_of(const at::Tensor& q, const at::Tensor& kv, std::int64_t width) {
  if (!kv.defined()) {
    return {q, {}, {}};
  }
  return {q, kv.narrow(1, 0, width), kv.narrow(1, width, width)};
}

CpuAttention attend(const Inputs& inputs, const Layout& layout) {
  const auto& shape = layout.shape;
  const auto tokens = inputs.q.size(0);
  CpuAttention result{at::empty({tokens, shape.heads * shape.head_dim}, inputs.q.options()),
                      at::empty({shape.heads, tokens}, inputs.q.options().dtype(at::kFloat))};
  with_factors(inputs.q.scalar_type(), shape,
               [&]<class F>() { forward<F>(inputs, result, layout); });
  return result;
}

void attend_backward(const at::Tensor& grad, const Inputs& inputs, const CpuAttention& forward,
                     const Gradients& gradients, const Layout& layout) {
  const at::Tensor rows = grad.stride(1) == 1 ? grad : grad.contiguous();
  with_factors(inputs.q.scalar_type(), layout.shape,
               [&]<class F>() { backward<F>(rows, inputs, forward, gradients, layout); });
}

}  // namespace

CpuAttention cpu_attention(const at::Tensor& qkv, const AttentionShape& shape,
                           std::span<const AttentionRun> runs) {
  return attend(parts_of<Inputs>(qkv, shape), layout_of(shape, runs));
}

at::Tensor cpu_attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                  const CpuAttention& forward, const AttentionShape& shape,
                                  std::span<const AttentionRun> runs) {
  at::Tensor dqkv = at::empty({qkv.size(0), qkv.size(1)}, qkv.options());
  attend_backward(grad, parts_of<Inputs>(qkv, shape), forward, parts_of<Gradients>(dqkv, shape),
                  layout_of(shape, runs));
  return dqkv;
}

CpuAttention cpu_cross_attention(const at::Tensor& q, const at::Tensor& kv,
                                 const CrossAttentionShape& shape) {
  return attend(parts_of<Inputs>(q, kv, shape.heads * shape.head_dim), layout_of(shape));
}

void cpu_cross_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& kv,
                                  const CpuAttention& forward, const CrossAttentionShape& shape,
                                  const at::Tensor& dq, const at::Tensor& dkv) {
  const auto width = shape.heads * shape.head_dim;
  attend_backward(grad, parts_of<Inputs>(q, kv, width), forward,
                  parts_of<Gradients>(dq, dkv, width), layout_of(shape));
}

}  // namespace lorascale::nn
