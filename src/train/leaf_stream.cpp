#include "train/leaf_stream.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <numeric>

#include "base/error.hpp"
#include "base/units.hpp"
#include "data/leaf_builder.hpp"
#include "data/prefetcher.hpp"
#include "data/row_plan.hpp"
#include "data/sampler.hpp"
#include "data/token_dataset.hpp"

namespace lorascale::train {
namespace {

constexpr std::size_t kPrefetchedLeaves = 4;
constexpr double kNearlyAsLong = 0.02;                            // share of a leaf's tokens
constexpr std::int64_t kMostMaskToCount = std::int64_t{1} << 24;  // tokens; 16 MiB are read

}  // namespace

struct TokenSource::Impl {
  data::TokenDataset dataset;
  data::RowPlan plan;
  bool shuffled = false;
  std::uint64_t seed = 0;
  std::unique_ptr<data::Prefetcher<data::TokenLeaf>> prefetcher;  // last: its thread uses the rest

  Impl(const std::filesystem::path& path, const TokenSourceSettings& settings)
      : dataset(path, settings.vocabulary),
        plan(dataset.offsets(), settings.sequence_length, settings.packing) {}

  [[nodiscard]] std::vector<std::int64_t> rows_at(std::int64_t epoch, std::int64_t first,
                                                  std::int64_t count) const {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
    std::iota(rows.begin(), rows.end(), first);
    if (shuffled) {
      const data::EpochOrder order(plan.rows(), seed, epoch);
      std::transform(rows.begin(), rows.end(), rows.begin(),
                     [&](std::int64_t position) { return order.row_at(position); });
    }
    return rows;
  }

  [[nodiscard]] bool all_of_length(std::int64_t row, std::int32_t length) const {
    const auto pieces = plan.row(row);
    return std::all_of(pieces.begin(), pieces.end(),
                       [&](const data::Piece& piece) { return piece.length == length; });
  }
};

TokenSource::TokenSource(std::filesystem::path path, const TokenSourceSettings& settings)
    : path_(std::move(path)), impl_(std::make_unique<Impl>(path_, settings)) {}

TokenSource::~TokenSource() = default;

std::int64_t TokenSource::rows() const {
  return impl_->plan.rows();
}

double TokenSource::tokens_per_row() const {
  return static_cast<double>(impl_->plan.tokens()) / static_cast<double>(rows());
}

std::int64_t TokenSource::targets_per_epoch() const {
  const data::TokenDataset& dataset = impl_->dataset;
  const data::RowPlan& plan = impl_->plan;
  const bool masked = dataset.has_loss_mask() && plan.tokens() <= kMostMaskToCount;
  std::int64_t targets = 0;
  std::vector<std::uint8_t> mask;
  for (std::int64_t row = 0; row < plan.rows(); ++row) {
    for (const data::Piece& piece : plan.row(row)) {
      if (!masked || piece.length < 2) {
        targets += piece.length - 1;
        continue;
      }
      mask.resize(static_cast<std::size_t>(piece.length));
      dataset.read_mask(piece.first, mask);
      targets += std::accumulate(mask.begin() + 1, mask.end(), std::int64_t{0});
    }
  }
  return targets;
}

std::string TokenSource::fingerprint() const {
  return impl_->dataset.fingerprint();
}

const std::string& TokenSource::tokenizer() const {
  return impl_->dataset.tokenizer();
}

std::string TokenSource::summary() const {
  return fmt::format("{}: {}, {}, {}, packed to {:.1f} %", path_.string(),
                     counted(impl_->dataset.documents(), "document"),
                     counted(impl_->dataset.tokens(), "token"), counted(rows(), "row"),
                     100 * impl_->plan.efficiency());
}

data::TokenLeaf TokenSource::leaf(std::int64_t first, std::int64_t count) const {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
  std::iota(rows.begin(), rows.end(), first);
  return data::build_leaf(impl_->dataset, impl_->plan, 0, rows);
}

data::TokenLeaf TokenSource::longest(std::int64_t count) const {
  count = std::min(count, rows());
  std::vector<std::int64_t> length(static_cast<std::size_t>(rows()), 0);
  for (std::int64_t row = 0; row < rows(); ++row) {
    for (const auto& piece : impl_->plan.row(row)) {
      length[static_cast<std::size_t>(row)] += piece.length;
    }
  }
  std::vector<std::int64_t> order(length.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return length[static_cast<std::size_t>(a)] > length[static_cast<std::size_t>(b)];
  });
  std::vector<std::int64_t> chosen(order.begin(), order.begin() + count);
  std::int64_t tokens = 0;
  for (const auto row : chosen) {
    tokens += length[static_cast<std::size_t>(row)];
  }
  const auto document = impl_->plan.row(chosen[0])[0].length;
  const bool alike = std::all_of(chosen.begin(), chosen.end(), [&](std::int64_t row) {
    return impl_->all_of_length(row, document);
  });
  const auto shortest = length[static_cast<std::size_t>(chosen.back())] -
                        static_cast<std::int64_t>(kNearlyAsLong * static_cast<double>(tokens));
  for (auto i = static_cast<std::size_t>(count); alike && i < order.size(); ++i) {
    if (length[static_cast<std::size_t>(order[i])] < shortest) {
      break;
    }
    const auto other = count > 1 ? document : impl_->plan.row(order[i])[0].length;
    if (!impl_->all_of_length(order[i], other)) {
      chosen.back() = order[i];
      break;
    }
  }
  return data::build_leaf(impl_->dataset, impl_->plan, 0, chosen);
}

void TokenSource::start(std::optional<std::uint64_t> seed) {
  impl_->shuffled = seed.has_value();
  impl_->seed = seed.value_or(0);
  impl_->prefetcher = std::make_unique<data::Prefetcher<data::TokenLeaf>>(kPrefetchedLeaves);
}

void TokenSource::begin_update(std::int64_t first_position, std::int64_t samples,
                               std::int64_t leaf_size, std::int64_t leaf_begin,
                               std::int64_t leaf_end) {
  LS_ASSERT(impl_->prefetcher != nullptr);
  impl_->prefetcher->clear();
  const auto epoch = first_position / rows();
  const auto start = first_position % rows();
  LS_ASSERT(start + samples <= rows());
  for (auto leaf = leaf_begin; leaf < leaf_end; ++leaf) {
    const auto first = leaf * leaf_size;
    const auto count = std::min(leaf_size, samples - first);
    impl_->prefetcher->request([impl = impl_.get(), epoch, at = start + first, count] {
      return data::build_leaf(impl->dataset, impl->plan, epoch, impl->rows_at(epoch, at, count));
    });
  }
}

data::TokenLeaf TokenSource::next() {
  return impl_->prefetcher->next();
}

std::int64_t TokenSource::end_id() const {
  return impl_->dataset.eos_id();
}

std::int64_t TokenSource::answer_end_id() const {
  return impl_->dataset.answer_end_id();
}

std::string TokenSource::decode(std::span<const std::int32_t> ids) const {
  return impl_->dataset.decode(ids);
}

std::vector<std::int32_t> TokenSource::encode_prompt(const std::string& text) const {
  return impl_->dataset.encode_prompt(text);
}

}  // namespace lorascale::train
