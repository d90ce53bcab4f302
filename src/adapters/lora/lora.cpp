#include "adapters/lora/lora.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "adapters/targets.hpp"
#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/rng.hpp"
#include "nn/lora_conv2d.hpp"
#include "nn/lora_linear.hpp"

namespace lorascale::adapters {
namespace {

// Uniform in ±1/sqrt(in): what kaiming_uniform(a = sqrt 5) gives. A function of seed, name and
// place only.
void fill_a(const at::Tensor& target, std::int64_t in, std::uint64_t seed,
            const std::string& name) {
  at::Tensor host = at::empty(target.sizes(), at::kFloat);
  float* data = host.data_ptr<float>();
  const auto key = philox_key(mix64(seed) ^ fnv1a64(name));
  const auto bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(in)));
  for (std::int64_t i = 0; i < host.numel(); i += 4) {
    const auto bits =
        philox4x32({static_cast<std::uint32_t>(i / 4), 0, 0, 0x4C6F5241U /* "LoRA" */}, key);
    for (std::int64_t j = i; j < std::min(i + 4, host.numel()); ++j) {
      data[j] = bound * (2.0F * uniform24(bits[static_cast<std::size_t>(j - i)]) - 1.0F);
    }
  }
  target.copy_(host);
}

// Numbers that each output of A is a sum over.
std::int64_t fan_in(const nn::Site& site) {
  return site.weight.numel() / site.weight.size(0);
}

struct Shapes {
  std::vector<std::int64_t> a, b;
};
Shapes shapes_of(const LoraModule& module) {
  auto a = module.site.weight.sizes().vec();
  std::vector<std::int64_t> b(a.size(), 1);
  b[0] = a[0];
  b[1] = a[0] = module.rank;
  return {std::move(a), std::move(b)};
}

}  // namespace

double LoraSettings::scale(std::int64_t module_rank, double module_alpha) const {
  const auto r = static_cast<double>(module_rank);
  return module_alpha / (rslora ? std::sqrt(r) : r);
}

std::string lora_a_name(const std::string& module) {
  return module + ".lora_A.weight";
}
std::string lora_b_name(const std::string& module) {
  return module + ".lora_B.weight";
}

std::vector<LoraModule> match_lora_targets(const AdaptedModel& model,
                                           const LoraSettings& settings) {
  std::vector<LoraModule> modules;
  Targets targets(settings.targets);
  Exceptions<std::int64_t> ranks(settings.rank_pattern, "adapter.rank_pattern");
  Exceptions<double> alphas(settings.alpha_pattern, "adapter.alpha_pattern");
  for (const auto& site : model.sites) {
    if (!targets.names(site)) {
      continue;
    }
    if (site.geometry.groups != 1) {
      throw_bad_config("adapter.targets names " + site.name +
                       ", a convolution in groups, which takes no adapter yet; leave it out");
    }
    LoraModule module{site, ranks.of(site.name, settings.rank),
                      alphas.of(site.name, settings.alpha)};
    module.scale = settings.scale(module.rank, module.alpha);
    const auto most = std::min(fan_in(site), site.weight.size(0));
    if (module.rank < 1 || module.rank > most) {
      throw_bad_config("adapter.rank: " + std::to_string(module.rank) + " for " + site.name +
                       " must lie in 1 to " + std::to_string(most) +
                       "; give it a rank of its own by adapter.rank_pattern, or leave it out of "
                       "adapter.targets");
    }
    modules.push_back(std::move(module));
  }
  targets.require_all_used(model);
  ranks.require_all_used();
  alphas.require_all_used();
  return modules;
}

LoraMatrices matrices_of(const TrainableParameters& parameters, const at::Tensor& flat,
                         std::size_t modules, std::size_t i) {
  const auto& entries = parameters.entries();
  LS_ASSERT(entries.size() == 2 * modules && i < modules);
  return {TrainableParameters::view(flat, entries[i]).flatten(1),
          TrainableParameters::view(flat, entries[modules + i]).flatten(1)};
}

std::unique_ptr<TrainableParameters> attach_lora(const std::vector<LoraModule>& modules,
                                                 const LoraSettings& settings, std::uint64_t seed) {
  LS_ASSERT(!modules.empty());
  TrainableParameters::GroupSpec a{{"lora_A"}, {}};
  TrainableParameters::GroupSpec b{{"lora_B"}, {}};
  b.group.lr_ratio = settings.lr_ratio;
  b.group.starts_at_zero = true;
  for (const auto& module : modules) {
    const auto shapes = shapes_of(module);
    a.entries.push_back({lora_a_name(module.site.name), shapes.a});
    b.entries.push_back({lora_b_name(module.site.name), shapes.b});
  }
  const auto options = modules.front().site.weight.options();
  auto parameters = std::make_unique<TrainableParameters>(std::vector{std::move(a), std::move(b)},
                                                          options.device());
  const auto dtype = c10::typeMetaToScalarType(options.dtype());
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto& module = modules[i];
    const auto& entry_a = parameters->entries()[i];
    const auto& entry_b = parameters->entries()[modules.size() + i];
    nn::LoraFactors factors;
    factors.scale = module.scale;
    factors.dropout = settings.dropout;
    factors.draw = static_cast<std::uint32_t>(i);
    factors.grad_a = TrainableParameters::view(parameters->gradient(), entry_a);
    factors.grad_b = TrainableParameters::view(parameters->gradient(), entry_b);
    fill_a(TrainableParameters::view(parameters->master(), entry_a), fan_in(module.site), seed,
           entry_a.name);
    factors.a = parameters->computed(entry_a, dtype);
    factors.b = parameters->computed(entry_b, dtype);
    if (module.site.kind == nn::SiteKind::kConv2d) {
      module.site.attach(
          std::make_unique<nn::LoraConv2d>(std::move(factors), module.site.geometry));
    } else {
      module.site.attach(std::make_unique<nn::LoraLinear>(std::move(factors)));
    }
  }
  parameters->refresh();
  return parameters;
}

}  // namespace lorascale::adapters
