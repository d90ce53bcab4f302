#include "data/tokens/token_dataset.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.hpp"
#include "base/units.hpp"
#include "data/tokens/leaf_builder.hpp"
#include "data/tokens/target_scan.hpp"
#include "data/tokens/token_file.hpp"

namespace lorascale::data {
namespace {

constexpr double kNearlyAsLong = 0.02;  // share of a leaf's tokens

RowPlan plan_rows(const TokenFile& file, const TokenRowSettings& settings) {
  CountTargets count;
  if (file.has_loss_mask() && !settings.text_only) {
    count = [scan = TargetScan(file)](std::int64_t begin, std::int64_t end) mutable {
      return scan.count(begin, end);
    };
  }
  return {file.offsets(), settings.sequence_length, settings.packing.value_or(true),
          std::move(count)};
}

}  // namespace

struct TokenDataset::Impl {
  TokenFile file;
  TokenRowSettings settings;
  RowPlan plan;
  bool packed = true;
  std::int64_t packed_rows = 0;  // that auto decided against; else 0

  Impl(const std::filesystem::path& path, const TokenRowSettings& settings)
      : file(path, settings.vocabulary),
        settings(settings),
        plan(plan_rows(file, settings)),
        packed(settings.packing.value_or(true)) {
    if (!settings.packing &&
        better_apart(file.offsets(), settings.sequence_length, plan.rows(), settings.batch)) {
      packed = false;
      packed_rows = plan.rows();
      this->settings.packing = false;
      plan = plan_rows(file, this->settings);
    }
  }

  [[nodiscard]] bool all_of_length(std::int64_t row, std::int32_t length) const {
    const auto pieces = plan.row(row);
    return std::all_of(pieces.begin(), pieces.end(),
                       [&](const Piece& piece) { return piece.length == length; });
  }
};

TokenDataset::TokenDataset(std::filesystem::path path, const TokenRowSettings& settings)
    : path_(std::move(path)), impl_(std::make_unique<Impl>(path_, settings)) {}

TokenDataset::~TokenDataset() = default;

std::int64_t TokenDataset::rows() const {
  return impl_->plan.rows();
}

std::int64_t TokenDataset::documents() const {
  return impl_->file.documents();
}

bool TokenDataset::packed() const {
  return impl_->packed;
}

double TokenDataset::tokens_per_row() const {
  return static_cast<double>(impl_->plan.tokens()) / static_cast<double>(rows());
}

std::int64_t TokenDataset::targets_per_epoch() const {
  return impl_->plan.targets();
}

const LeftOut& TokenDataset::left_out() const {
  return impl_->plan.left_out();
}

std::string TokenDataset::left_out_text() const {
  const auto& left_out = impl_->plan.left_out();
  const bool packing = impl_->packed;
  std::string text = fmt::format("{} of {} {} of {} have no target", left_out.pieces, left_out.of,
                                 packing ? "pieces" : "rows", path_.string());
  if (left_out.cut > 0) {
    text += fmt::format(
        "; in {} of them data.sequence_length {} cuts off every target: {} keeps them all",
        left_out.cut, impl_->settings.sequence_length, left_out.longest_cut);
  } else if (impl_->file.has_loss_mask()) {
    text += ": its loss_mask marks none there";
  } else {
    text += ": a single token has nothing to be predicted from";
  }
  return text;
}

void TokenDataset::require_targets() const {
  if (rows() > 0) {
    return;
  }
  const bool cut = left_out().cut > 0;
  throw_bad_input(
      "nothing to train: " + left_out_text() +
      (cut ? "; raise data.sequence_length" : "; prepare it again with its answers as targets"));
}

std::string TokenDataset::fingerprint() const {
  return impl_->file.fingerprint() + (left_out().pieces > 0 ? "+rows-with-targets" : "");
}

std::string TokenDataset::why_other(const std::string& fingerprint) const {
  if (fingerprint != impl_->file.fingerprint() || left_out().pieces == 0) {
    return {};
  }
  return "was begun by a version that trained on rows without a target too, and " +
         left_out_text() +
         "; they are left out now, so the run cannot go on as it began: end it with that version, "
         "or begin anew in another run.output_dir, with adapter.init_from if what it learned is "
         "worth keeping";
}

const std::string& TokenDataset::tokenizer() const {
  return impl_->file.tokenizer();
}

std::string TokenDataset::summary() const {
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
                     counted(impl_->file.tokens(), "token"), what);
}

std::unique_ptr<Leaf> TokenDataset::leaf(const SampleKey& key,
                                         std::span<const std::int64_t> rows) const {
  return std::make_unique<TokenLeaf>(build_leaf(impl_->file, impl_->plan, key, rows));
}

std::vector<std::int64_t> TokenDataset::heaviest(std::int64_t count) const {
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
  return chosen;
}

std::int64_t TokenDataset::end_id() const {
  return impl_->file.eos_id();
}

std::int64_t TokenDataset::answer_end_id() const {
  return impl_->file.answer_end_id();
}

std::string TokenDataset::decode(std::span<const std::int32_t> ids) const {
  return impl_->file.decode(ids);
}

std::vector<std::int32_t> TokenDataset::encode_prompt(const std::string& text) const {
  return impl_->file.encode_prompt(text);
}

}  // namespace lorascale::data
