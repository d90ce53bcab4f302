// What the coordinator's tests share: a small sound recipe, made-up facts that depend on the step
// alone, and a check of errors by code and key words.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "coordinator/coordinator.hpp"
#include "coordinator/recipe_check.hpp"

namespace lorascale::coordinator::testing {

// 1000 samples an epoch in batches of 64: 15 whole updates and one of 40. Three epochs, tuned
// at 16.
inline Recipe small_recipe() {
  Recipe recipe;
  recipe.seed = 7;
  recipe.samples_per_epoch = 1000;
  recipe.global_batch = 64;
  recipe.reference_batch = 16;
  recipe.leaf_size = 4;
  recipe.budget_samples = 3000;
  recipe.warmup_samples = 300;
  return recipe;
}

// Falls from 2 with a ripple, so that every step has another loss.
inline StepFacts facts_of(std::int64_t step) {
  StepFacts facts;
  facts.step = step;
  const auto t = static_cast<double>(step);
  facts.loss = 1 + 1 / (1 + 0.05 * t) + 0.01 * std::sin(1.7 * t);
  facts.grad_norm = 0.5 + 0.1 * std::cos(t);
  facts.elapsed_minutes = 0.01 * t;
  return facts;
}

// Runs at most `steps` updates.
inline void advance(Coordinator& coordinator, std::int64_t steps) {
  for (std::int64_t i = 0; i < steps; ++i) {
    const auto plan = coordinator.next_step();
    if (!plan) {
      return;
    }
    coordinator.on_step(facts_of(plan->step));
  }
}

// What is said of a recipe, without the topics.
inline std::vector<std::string> advice(const Recipe& recipe, int world_size) {
  std::vector<std::string> lines;
  for (const Remark& remark : remarks(recipe, world_size)) {
    lines.push_back(remark.text);
  }
  return lines;
}

inline std::vector<Decision> of_kind(const std::vector<Decision>& decisions,
                                     const std::string& kind) {
  std::vector<Decision> found;
  for (const Decision& decision : decisions) {
    if (decision.kind == kind) {
      found.push_back(decision);
    }
  }
  return found;
}

inline void expect_error(ExitCode code, std::initializer_list<const char*> key_words,
                         const std::function<void()>& action) {
  try {
    action();
    ADD_FAILURE() << "no error was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    for (const char* words : key_words) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(words));
    }
  }
}

}  // namespace lorascale::coordinator::testing
