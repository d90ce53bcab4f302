#include "models/diffusion/text_contexts.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.hpp"

namespace lorascale::models::diffusion {
namespace {

constexpr const char* kPooled = "pooled ";  // before a caption's ids

// Rows of [begin, words, end] -> begin, the words of all rows, the last end.
at::Tensor join_rows(const at::Tensor& rows, std::int64_t samples, std::int64_t text_rows) {
  if (text_rows == 1) {
    return rows;
  }
  const auto positions = rows.size(1), d = rows.size(2);
  const at::Tensor all = rows.view({samples, text_rows, positions, d});
  return at::cat(
      {all.select(1, 0).narrow(1, 0, 1), all.narrow(2, 1, positions - 2).reshape({samples, -1, d}),
       all.select(1, text_rows - 1).narrow(1, positions - 1, 1)},
      1);
}

at::Tensor join_rows_backward(const at::Tensor& grad, std::int64_t text_rows,
                              std::int64_t positions) {
  if (text_rows == 1) {
    return grad;
  }
  const auto samples = grad.size(0), d = grad.size(2);
  at::Tensor all = at::zeros({samples, text_rows, positions, d}, grad.options());
  const auto words = grad.size(1) - 2;
  all.narrow(2, 1, positions - 2)
      .copy_(grad.narrow(1, 1, words).reshape({samples, text_rows, positions - 2, d}));
  all.select(1, 0).narrow(1, 0, 1).copy_(grad.narrow(1, 0, 1));
  all.select(1, text_rows - 1).narrow(1, positions - 1, 1).copy_(grad.narrow(1, words + 1, 1));
  return all.view({samples * text_rows, positions, d});
}

// Each of a sample's rows draws as a part of it.
std::optional<nn::SampleRows> rows_of_texts(const nn::SampleRows* rows, std::int64_t text_rows) {
  if (rows == nullptr) {
    return std::nullopt;
  }
  nn::SampleRows all{rows->key, rows->sample_ids, {}};
  for (std::size_t i = 0; i <= rows->sample_ids.size(); ++i) {
    all.offsets.push_back(static_cast<std::int32_t>(static_cast<std::int64_t>(i) * text_rows));
  }
  return all;
}

}  // namespace

TextContexts::TextContexts(const Pipeline& pipeline, std::int64_t clip_skip) : pipeline_(pipeline) {
  for (const auto& text : pipeline.config().texts) {
    auto choice = text.context;
    choice.skip = clip_skip > 0 ? clip_skip : choice.skip;
    choices_.push_back(choice);
  }
}

bool TextContexts::trains() const {
  return std::ranges::any_of(pipeline_.texts(), &ClipTextEncoder::trains);
}

Context TextContexts::forward(const at::Tensor& ids, const nn::SampleRows* rows,
                              ContextSaved* saved) const {
  return trains() ? encode(ids, rows, saved) : kept(ids);
}

Context TextContexts::encode(const at::Tensor& ids, const nn::SampleRows* rows,
                             ContextSaved* saved) const {
  const auto& texts = pipeline_.texts();
  const auto samples = ids.size(0), text_rows = ids.size(2), positions = ids.size(3);
  LS_ASSERT(ids.size(1) == std::ssize(texts));
  const auto device = texts.front().device();
  std::vector<at::Tensor> parts;
  Context result;
  if (saved != nullptr) {
    saved->encoders.assign(texts.size(), {});
    saved->samples = samples;
    saved->text_rows = text_rows;
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const at::Tensor own = ids.select(1, static_cast<std::int64_t>(i))
                               .reshape({samples * text_rows, positions})
                               .to(device, at::kLong);
    const auto draws = rows_of_texts(rows, text_rows);
    auto* keep = saved ? &saved->encoders[i] : nullptr;
    const auto output =
        texts[i].forward(own, choices_[i], draws ? &*draws : nullptr, keep ? &keep->clip : nullptr);
    parts.push_back(join_rows(output.context, samples, text_rows));
    if (output.pooled.defined()) {
      result.pooled = output.pooled.view({samples, text_rows, -1}).select(1, 0);
    }
    if (keep != nullptr) {
      keep->rows = draws;
    }
  }
  result.words = parts.size() == 1 ? parts.front() : at::cat(parts, 2);
  return result;
}

namespace {

// Of one caption's ids.
std::string key_of(const at::Tensor& ids) {
  const at::Tensor all = ids.contiguous();
  return {static_cast<const char*>(all.const_data_ptr()), all.nbytes()};
}

}  // namespace

Context TextContexts::kept(const at::Tensor& ids) const {
  const auto& texts = pipeline_.texts();
  const auto options = at::TensorOptions().dtype(pipeline_.dtype()).device(texts.front().device());
  std::int64_t width = 0;
  for (const auto& text : texts) {
    width += text.config().hidden;
  }
  const auto positions = ids.size(2) * (ids.size(3) - 2) + 2;
  const auto projection = texts.back().config().projection;
  std::vector<at::Tensor> words, pooled;
  for (std::int64_t i = 0; i < ids.size(0); ++i) {
    const at::Tensor own = ids.narrow(0, i, 1);
    const auto key = key_of(own);
    std::optional<Context> made;
    const auto make = [&]() -> const Context& {
      if (!made) {
        made = encode(own, nullptr, nullptr);
      }
      return *made;
    };
    words.push_back(
        kept_.get(key, {1, positions, width}, options, [&] { return make().words.contiguous(); }));
    if (projection > 0) {
      pooled.push_back(kept_.get(kPooled + key, {1, projection}, options,
                                 [&] { return make().pooled.contiguous(); }));
    }
  }
  return {at::cat(words), pooled.empty() ? at::Tensor() : at::cat(pooled)};
}

std::int64_t TextContexts::fill(const at::Tensor& ids) const {
  std::int64_t made = 0;
  for (std::int64_t i = 0; i < ids.size(0); ++i) {
    const at::Tensor own = ids.narrow(0, i, 1);
    const auto key = key_of(own);
    made += kept_.fill(key, [&] { return kept(own).words; }) ? 1 : 0;
    if (pipeline_.texts().back().config().projection > 0) {
      kept_.fill(kPooled + key, [&] { return kept(own).pooled; });
    }
  }
  return made;
}

void TextContexts::backward(const at::Tensor& dwords, const at::Tensor& dpooled,
                            ContextSaved& saved) const {
  const auto& texts = pipeline_.texts();
  std::int64_t first = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto width = texts[i].config().hidden, positions = texts[i].config().positions;
    const at::Tensor own = dwords.narrow(2, first, width);
    first += width;
    if (!texts[i].trains()) {
      continue;
    }
    at::Tensor own_pooled;
    if (dpooled.defined() && texts[i].config().projection > 0) {
      own_pooled = at::zeros({saved.samples, saved.text_rows, dpooled.size(1)}, dpooled.options());
      own_pooled.select(1, 0).copy_(dpooled);
      own_pooled = own_pooled.view({-1, dpooled.size(1)});
    }
    auto& kept = saved.encoders[i];
    texts[i].backward(join_rows_backward(own, saved.text_rows, positions).contiguous(), own_pooled,
                      choices_[i], kept.rows ? &*kept.rows : nullptr, kept.clip);
  }
}

}  // namespace lorascale::models::diffusion
