#include "train/session.hpp"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "optim/adamw.hpp"
#include "optim/lamb.hpp"
#include "optim/sgd.hpp"
#include "optim/weight_average.hpp"
#include "train/recipe_from_config.hpp"
#include "train/same_files.hpp"
#include "train/start_warnings.hpp"
#include "train/tensor_memory.hpp"
#include "train/vote.hpp"

namespace lorascale::train {
namespace {

// Coefficient of the trust ratios of a group; 0 where they do not apply: to vectors (norms and
// biases), as is usual, and to LoRA's B, which starts at zero and would crawl (docs/optimizers.md).
double trust_of(const adapters::ParameterGroup& group, const config::OptimizerSection& optimizer) {
  const bool excluded = group.vectors || (group.starts_at_zero && !optimizer.trust_ratio_lora_b);
  if (!optimizer.has_trust_ratios() || excluded) {
    return 0;
  }
  return optimizer.name == config::OptimizerName::kLars ? optimizer.trust_coefficient : 1;
}

std::unique_ptr<optim::Optimizer> make_rule(config::OptimizerName name,
                                            std::vector<optim::Segment> segments,
                                            const at::Tensor& parameters) {
  switch (name) {
    case config::OptimizerName::kAdamW:
      return optim::make_adamw(std::move(segments), parameters);
    case config::OptimizerName::kSgd:
      return optim::make_sgd(std::move(segments), parameters);
    case config::OptimizerName::kLamb:
      return optim::make_lamb(std::move(segments), parameters);
    case config::OptimizerName::kLars:
      return optim::make_lars(std::move(segments), parameters);
  }
  throw_bad_config("optimizer.name is none of the known");
}

}  // namespace

std::unique_ptr<optim::Optimizer> make_optimizer(const config::RunConfig& config,
                                                 const adapters::TrainableParameters& parameters) {
  std::vector<optim::Segment> segments;
  for (const auto& group : parameters.groups()) {
    if (group.end == group.begin) {
      continue;
    }
    segments.push_back({group.begin,
                        group.end,
                        group.lr_ratio,
                        group.decays,
                        trust_of(group, config.optimizer),
                        {}});
    for (const auto& entry : parameters.entries()) {
      if (entry.offset >= group.begin && entry.offset < group.end) {
        segments.back().tensors.push_back(entry.size());
      }
    }
  }
  auto optimizer = make_rule(config.optimizer.name, std::move(segments), parameters.master());
  if (config.average.name != config::Average::kNone) {
    return std::make_unique<optim::WeightAverage>(std::move(optimizer), parameters.master());
  }
  return optimizer;
}
coordinator::Recipe recipe_of(const Session& session, int world_size, UnitContext* units) {
  const auto& data = session.workload->train();
  auto recipe = make_recipe(session.config, data.rows(), data.tokens_per_row(), world_size, units);
  recipe.trainable_parameters = session.parameters().size();
  recipe.targets_per_epoch = data.targets_per_epoch();
  session.workload->describe(recipe);
  return recipe;
}

void complete_session(Session& session, int world_size) {
  session.optimizer = make_optimizer(session.config, session.parameters());
  session.recipe = recipe_of(session, world_size, &session.units);
}

Session open_session(World& world, const config::RunConfig& config,
                     const prepare::DataFiles& files) {
  Session session;
  session.config = config;
  session.files = files;
  session.base = share_base(world, config);
  together(world.host, [&] {
    bool out_of_memory = false;
    const auto error = attempt(
        [&] {
          claim_share(session.base);
          session.workload =
              workloads::open_workload(session.config, files, session.base.place(world.place));
        },
        &out_of_memory);
    if (out_of_memory) {
      throw_bad_config("the weights of " + config.model.path + " do not fit into memory; use a " +
                       "smaller model.dtype or model" + budget_remedy(world.place));
    }
    if (error) {
      throw Error(*error);
    }
  });
  // Behind the agreement of all: weights in common memory are whole now.
  together(world.host, [&] {
    session.adapter = adapters::make_adapter(
        session.config.adapter, workloads::adapted_model(session.model(), session.config),
        session.config.run.seed);
    complete_session(session, world.host.size());
  });
  session.base.seal();
  const auto& workload = *session.workload;
  require_same_files(world, config.model.path, workload.model_fingerprint());
  require_same_files(world, files.train.string(), workload.train().fingerprint());
  if (workload.validation() != nullptr) {
    require_same_files(world, files.validation->string(), workload.validation()->fingerprint());
  }
  if (world.is_root()) {
    auto warnings = workloads::unused_settings(session.config);
    for (auto& warning : start_warnings(session.model())) {
      warnings.push_back(std::move(warning));
    }
    for (auto& warning : workload.warnings()) {
      warnings.push_back(std::move(warning));
    }
    for (const auto& warning : warnings) {
      spdlog::warn("{}", warning);
    }
    if (const auto warning = session.adapter->warning()) {
      spdlog::warn("adapter.init_from: {}", *warning);
    }
  }
  return session;
}

}  // namespace lorascale::train
