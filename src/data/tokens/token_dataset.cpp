#include "train/leaf_stream.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <utility>

#include "base/error.hpp"
#include "base/units.hpp"
#include "data/prefetcher.hpp"
#include "data/sampler.hpp"
#include "data/tokens/leaf_builder.hpp"
#include "data/tokens/row_plan.hpp"
#include "data/tokens/target_scan.hpp"
#include "data/tokens/token_file.hpp"

namespace lorascale::train {
namespace {

constexpr std::size_t kPrefetchedLeaves = 4;
constexpr double kNearlyAsLong = 0.02;  // share of a leaf's tokens

data::RowPlan plan_rows(const data::TokenFile& dataset, const TokenSourceSettings& settings) {
  data::CountTargets count;
  if (dataset.has_loss_mask() && !settings.text_only) {
    count = [scan = data::TargetScan(dataset)](std::int64_t begin, std::int64_t end) mutable {
      return scan.count(begin, end);
    };
  }
  return {dataset.offsets(), settings.sequence_length, settings.packing.value_or(true),
          std::move(count)};
}

}  // namespace

struct TokenSource::Impl {
  data::TokenFile dataset;
  TokenSourceSettings settings;
  data::RowPlan plan;
  bool packed = true;
  std::int64_t packed_rows = 0;  // that auto decided against; else 0
  bool shuffled = false;
  std::uint64_t seed = 0;
  std::unique_ptr<data::Prefetcher<data::TokenLeaf>> prefetcher;  // last: its thread uses the rest

  Impl(const std::filesystem::path& path, const TokenSourceSettings& settings)
      : dataset(path, settings.vocabulary),
        settings(settings),
        plan(plan_rows(dataset, settings)),
        packed(settings.packing.value_or(true)) {
    if (!settings.packing && data::better_apart(dataset.offsets(), settings.sequence_length,
                                                plan.rows(), settings.batch)) {
      packed = false;
      packed_rows = plan.rows();
      this->settings.packing = false;
      plan = plan_rows(dataset, this->settings);
    }
  }

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

std::int64_t TokenSource::documents() const {
  return impl_->dataset.documents();
}

bool TokenSource::packed() const {
  return impl_->packed;
}

double TokenSource::tokens_per_row() const {
  return static_cast<double>(impl_->plan.tokens()) / static_cast<double>(rows());
}

std::int64_t TokenSource::targets_per_epoch() const {
  return impl_->plan.targets();
}

const data::LeftOut& TokenSource::left_out() const {
  return impl_->plan.left_out();
}

std::string TokenSource::left_out_text() const {
  const auto& left_out = impl_->plan.left_out();
  const bool packing = impl_->packed;
  std::string text = fmt::format("{} of {} {} of {} have no target", left_out.pieces, left_out.of,
                                 packing ? "pieces" : "rows", path_.string());
  if (left_out.cut > 0) {
    text += fmt::format(
        "; in {} of them data.sequence_length {} cuts off every target: {} keeps them all",
        left_out.cut, impl_->settings.sequence_length, left_out.longest_cut);
  } else if (impl_->dataset.has_loss_mask()) {
    text += ": its loss_mask marks none there";
  } else {
    text += ": a single token has nothing to be predicted from";
  }
  return text;
}

void TokenSource::require_targets() const {
  if (rows() > 0) {
    return;
  }
  const bool cut = left_out().cut > 0;
  throw_bad_input(
      "nothing to train: " + left_out_text() +
      (cut ? "; raise data.sequence_length" : "; prepare it again with its answers as targets"));
}

std::string TokenSource::fingerprint() const {
  return dataset_fingerprint() + (left_out().pieces > 0 ? "+rows-with-targets" : "");
}

std::string TokenSource::dataset_fingerprint() const {
  return impl_->dataset.fingerprint();
}

const std::string& TokenSource::tokenizer() const {
  return impl_->dataset.tokenizer();
}

std::string TokenSource::summary() const {
  const std::string rows_text = counted(rows(), "row");
  const double filled = 100 * impl_->plan.efficiency();
  const std::string what =
      impl_->packed_rows > 0
          ? fmt::format(
                "{}: a document each, for packing auto would make {} of them and too few "
                "updates",
                rows_text, impl_->packed_rows)
      : impl_->packed ? fmt::format("{}, packed to {:.1f} %", rows_text, filled)
                      : fmt::format("{}: a document each, {:.1f} % filled", rows_text, filled);
  return fmt::format("{}: {}, {}, {}", path_.string(), counted(documents(), "document"),
                     counted(impl_->dataset.tokens(), "token"), what);
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
