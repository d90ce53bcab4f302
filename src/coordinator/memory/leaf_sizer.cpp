#include "coordinator/memory/leaf_sizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/units.hpp"

namespace lorascale::coordinator {
namespace {

std::int64_t largest_divisor(std::int64_t number, std::int64_t most) {
  for (std::int64_t divisor = std::min(number, most); divisor > 1; --divisor) {
    if (number % divisor == 0) {
      return divisor;
    }
  }
  return 1;
}

std::int64_t next_larger_divisor(std::int64_t number, std::int64_t than, std::int64_t most) {
  for (std::int64_t divisor = than + 1; divisor <= std::min(number, most); ++divisor) {
    if (number % divisor == 0) {
      return divisor;
    }
  }
  return than;
}

constexpr std::int64_t kMostPatience = std::int64_t{1} << 40;

}  // namespace

std::string who_ran_out(std::int64_t ranks, std::int64_t first) {
  return fmt::format("{} (the first is rank {})", counted(ranks, "rank"), first);
}

std::int64_t LeafSizer::leaf_size(std::int64_t batch) const {
  // The recipe's own leaf need not be looked for: it divides the recipe's batch.
  return limit_ == wanted_ && batch % wanted_ == 0 ? wanted_ : largest_divisor(batch, limit_);
}

bool LeafSizer::on_out_of_memory(const MemoryFacts& facts, std::int64_t batch, std::int64_t samples,
                                 DecisionLog& log) {
  const std::int64_t before = leaf_size(batch);
  const std::string what = fmt::format("update {} ran out of memory on {}", facts.step,
                                       who_ran_out(facts.ranks, facts.rank));
  if (before == 1) {
    if (last_try_ == facts.step) {
      return false;
    }
    last_try_ = facts.step;
    clean_ = 0;
    log.add(facts.step, samples, "memory",
            what + " in leaves of one sample: the update is done once more",
            {{"leaf_size", {1, 1}}, {"ranks", facts.ranks}, {"rank", facts.rank}});
    return true;
  }
  if (grown_) {
    patience_ = std::min(2 * patience_, kMostPatience);
  }
  grown_ = false;
  clean_ = 0;
  limit_ = largest_divisor(batch, before / 2);
  log.add(facts.step, samples, "memory",
          fmt::format("{}: leaf {} -> {}, and the update is done again with the same samples, "
                      "batch and rates; leaf {} is tried again after {} updates",
                      what, before, limit_, before, patience_),
          {{"leaf_size", {before, limit_}},
           {"ranks", facts.ranks},
           {"rank", facts.rank},
           {"patience", patience_}});
  return true;
}

void LeafSizer::on_clean_update(std::int64_t step, std::int64_t batch, std::int64_t samples,
                                DecisionLog& log) {
  last_try_ = 0;
  const std::int64_t before = leaf_size(batch);
  if (limit_ == wanted_ || ++clean_ < patience_) {
    return;
  }
  clean_ = 0;
  const std::int64_t larger = next_larger_divisor(batch, before, wanted_);
  limit_ = larger == before ? wanted_ : larger;
  grown_ = true;
  if (larger == before) {
    return;
  }
  log.add(step, samples, "memory",
          fmt::format("{} updates without running out of memory: leaf {} -> {}", patience_, before,
                      larger),
          {{"leaf_size", {before, larger}}, {"patience", patience_}});
}

Json LeafSizer::save() const {
  return {{"wanted", wanted_},
          {"limit", limit_},
          {"clean", clean_},
          {"patience", patience_},
          {"grown", grown_}};
}

void LeafSizer::load(const Json& state) {
  if (state.at("wanted").get<std::int64_t>() != wanted_) {
    return;
  }
  limit_ = std::clamp<std::int64_t>(state.at("limit").get<std::int64_t>(), 1, wanted_);
  clean_ = std::max<std::int64_t>(0, state.at("clean").get<std::int64_t>());
  patience_ = std::clamp<std::int64_t>(state.at("patience").get<std::int64_t>(), 1, kMostPatience);
  grown_ = state.at("grown").get<bool>();
}

}  // namespace lorascale::coordinator
