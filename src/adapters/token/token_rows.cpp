#include "adapters/token/token_rows.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/portable_math.hpp"
#include "base/rng.hpp"

namespace lorascale::adapters {
namespace {

std::string entry_name(const nn::TokenTable& table) {
  return table.name + ".new_tokens";
}

const ParameterEntry& entry_of(const TrainableParameters& parameters, const nn::TokenTable& table) {
  const auto found =
      std::ranges::find(parameters.entries(), entry_name(table), &ParameterEntry::name);
  LS_ASSERT(found != parameters.entries().end());
  return *found;
}

// Standard normal: Box & Muller 1958, of half a turn.
at::Tensor normal_rows(const std::vector<std::int64_t>& shape, std::uint64_t seed,
                       const std::string& name) {
  const auto open = [](std::uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; };
  at::Tensor rows = at::empty(shape, at::kFloat);
  float* data = rows.data_ptr<float>();
  const auto key = philox_key(mix64(seed) ^ fnv1a64(name));
  for (std::int64_t i = 0; i < rows.numel(); ++i) {
    const auto bits =
        philox4x32({static_cast<std::uint32_t>(i), 0, 0, 0x776F7264U /* "word" */}, key);
    data[i] =
        static_cast<float>(std::sqrt(-2 * natural_log(open(bits[0]))) * cos_pi(open(bits[1])));
  }
  return rows;
}

// Of each channel over a table, fp64 on the CPU. In pieces: a table in fp64 is large.
struct Spread {
  at::Tensor mean, deviation;
};
Spread spread_of(const at::Tensor& table) {
  constexpr std::int64_t kPiece = 4096;
  const auto count = table.size(0);
  at::Tensor sum = at::zeros({table.size(1)}, table.options().dtype(at::kDouble));
  at::Tensor squares = sum.clone();
  for (std::int64_t first = 0; first < count; first += kPiece) {
    const at::Tensor piece =
        table.narrow(0, first, std::min(kPiece, count - first)).to(at::kDouble);
    sum.add_(piece.sum(0));
    squares.add_(piece.square().sum(0));
  }
  const at::Tensor mean = sum / static_cast<double>(count);
  const at::Tensor variance = squares / static_cast<double>(count) - mean.square();
  return {mean.cpu(), variance.clamp_min(0).sqrt().cpu()};
}

at::Tensor first_rows(const nn::TokenTable& table, const std::vector<std::int64_t>& shape,
                      std::uint64_t seed) {
  if (!table.begins_as.empty()) {
    return table.weight.index_select(0, at::tensor(table.begins_as).to(table.weight.device()));
  }
  const auto spread = spread_of(table.weight);
  return normal_rows(shape, seed, entry_name(table)) * spread.deviation + spread.mean;
}

}  // namespace

TokenRows::TokenRows(const config::TokenSection& settings, std::vector<nn::TokenTable> tables,
                     std::optional<Embedding> start)
    : settings_(settings), start_(std::move(start)) {
  if (!settings.word) {
    return;
  }
  tables_ = std::move(tables);
  for (std::size_t i = 0; start_ && i < tables_.size(); ++i) {
    const std::vector<std::int64_t> shape = {settings.vectors, tables_[i].weight.size(1)};
    if (start_->rows.size() != tables_.size() ||
        start_->rows[i].sizes() != at::IntArrayRef(shape)) {
      throw_bad_config(fmt::format(
          "adapter.init_from: the embedding of '{}' has {} vectors of width {} for {} text "
          "encoder(s), and {} of width {} for {} are wanted here; set adapter.token.vectors, or "
          "take one of this kind of model",
          start_->word, start_->rows.front().size(0), start_->rows.front().size(1),
          start_->rows.size(), settings.vectors, tables_.front().weight.size(1), tables_.size()));
    }
  }
}

std::vector<TrainableParameters::GroupSpec> TokenRows::groups() const {
  if (!any()) {
    return {};
  }
  TrainableParameters::GroupSpec spec;
  spec.group.name = "token";
  spec.group.lr_ratio = settings_.lr_ratio;
  spec.group.decays = false;
  for (const auto& table : tables_) {
    spec.entries.push_back({entry_name(table), {settings_.vectors, table.weight.size(1)}});
  }
  return {std::move(spec)};
}

void TokenRows::attach(TrainableParameters& parameters, std::uint64_t seed) const {
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    const auto& table = tables_[i];
    const auto& entry = entry_of(parameters, table);
    TrainableParameters::view(parameters.master(), entry)
        .copy_(start_ ? start_->rows[i] : first_rows(table, entry.shape, seed));
    table.added->rows = parameters.computed(entry, table.weight.scalar_type());
    table.added->gradient = TrainableParameters::view(parameters.gradient(), entry);
  }
  parameters.refresh();
}

void TokenRows::write(const std::filesystem::path& folder, const TrainableParameters& parameters,
                      const ExportContext& context) const {
  if (!any()) {
    return;
  }
  Embedding embedding{*settings_.word, {}};
  for (const auto& table : tables_) {
    embedding.rows.push_back(
        TrainableParameters::view(parameters.master(), entry_of(parameters, table)).cpu().clone());
  }
  write_embedding(folder, embedding, context);
}

}  // namespace lorascale::adapters
