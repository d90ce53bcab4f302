#include "adapters/lora/lora.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

#include "adapters/targets.hpp"
#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/rng.hpp"
#include "nn/dora.hpp"
#include "nn/lora_conv2d.hpp"
#include "nn/lora_linear.hpp"

namespace lorascale::adapters {
namespace {

constexpr const char* kMagnitude = ".lora_magnitude_vector";

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

std::unique_ptr<nn::Delta> lora_delta(const nn::Site& site, const nn::LoraFactors& factors) {
  if (site.kind == nn::SiteKind::kConv2d) {
    return std::make_unique<nn::LoraConv2d>(factors, site.geometry);
  }
  return std::make_unique<nn::LoraLinear>(factors);
}

// All A before all B before all magnitudes, modules of one rate a group.
std::vector<TrainableParameters::GroupSpec> groups_of(const std::vector<LoraModule>& modules,
                                                      const LoraSettings& settings) {
  std::vector<TrainableParameters::GroupSpec> of_a, of_b, of_dora;
  const LoraModule* before = nullptr;
  for (const auto& module : modules) {
    if (before == nullptr || before->lr_ratio != module.lr_ratio) {
      const std::string rate =
          module.lr_ratio == 1 ? "" : fmt::format(" at {} of the rate", module.lr_ratio);
      auto& a = of_a.emplace_back().group;
      a.name = "lora_A" + rate;
      a.lr_ratio = module.lr_ratio;
      auto& b = of_b.emplace_back().group;
      b.name = "lora_B" + rate;
      b.lr_ratio = module.lr_ratio * settings.lr_ratio;
      b.starts_at_zero = true;
      if (settings.dora) {
        auto& magnitude = of_dora.emplace_back().group;
        magnitude.name = "magnitude" + rate;
        magnitude.lr_ratio = module.lr_ratio;
        magnitude.decays = false;
        magnitude.vectors = true;
      }
    }
    before = &module;
    const auto shapes = shapes_of(module);
    of_a.back().entries.push_back({lora_a_name(module.site.name), shapes.a});
    of_b.back().entries.push_back({lora_b_name(module.site.name), shapes.b});
    if (settings.dora) {
      of_dora.back().entries.push_back({dora_name(module.site.name), {module.site.out_features()}});
    }
  }
  std::ranges::move(of_b, std::back_inserter(of_a));
  std::ranges::move(of_dora, std::back_inserter(of_a));
  return of_a;
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
std::string dora_name(const std::string& module) {
  return module + kMagnitude;
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

void take_rates(const LoraSettings& settings, std::vector<LoraModule>& modules) {
  Exceptions<double> rates(settings.lr_pattern, "adapter.lr_pattern");
  for (auto& module : modules) {
    module.lr_ratio = rates.of(module.site.name, 1.0);
  }
  rates.require_all_used();
  std::ranges::stable_sort(modules, std::greater<>(), &LoraModule::lr_ratio);
}

LoraMatrices matrices_of(const TrainableParameters& parameters, const at::Tensor& flat,
                         std::size_t modules, std::size_t i) {
  const auto views = views_of(parameters, flat, modules, i);
  return {views.a.flatten(1), views.b.flatten(1)};
}

at::Tensor product_square(const LoraMatrices& factors) {
  const auto& [a, b] = factors;
  return (at::mm(a, a.t()) * at::mm(b.t(), b)).sum();
}

void limit_changes(const std::vector<LoraModule>& modules, double most,
                   TrainableParameters& parameters) {
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto factors = matrices_of(parameters, parameters.master(), modules.size(), i);
    const at::Tensor norm = product_square(factors).clamp_min_(0).sqrt_().mul_(modules[i].scale);
    const at::Tensor part = (most / norm).clamp_max_(1).sqrt_();  // of each factor
    at::Tensor(factors.a).mul_(part);
    at::Tensor(factors.b).mul_(part);
  }
}

LoraViews views_of(const TrainableParameters& parameters, const at::Tensor& flat,
                   std::size_t modules, std::size_t i) {
  const auto& entries = parameters.entries();
  LS_ASSERT(entries.size() >= 2 * modules && i < modules);
  const bool dora =
      entries.size() >= 3 * modules && entries[2 * modules].name.ends_with(kMagnitude);
  return {TrainableParameters::view(flat, entries[i]),
          TrainableParameters::view(flat, entries[modules + i]),
          dora ? TrainableParameters::view(flat, entries[2 * modules + i]) : at::Tensor()};
}

std::unique_ptr<TrainableParameters> attach_lora(const std::vector<LoraModule>& modules,
                                                 const LoraSettings& settings, std::uint64_t seed,
                                                 std::vector<TrainableParameters::GroupSpec> more) {
  LS_ASSERT(!modules.empty());
  const auto options = modules.front().site.weight.options();
  auto groups = groups_of(modules, settings);
  std::ranges::move(more, std::back_inserter(groups));
  auto parameters = std::make_unique<TrainableParameters>(std::move(groups), options.device());
  const auto dtype = c10::typeMetaToScalarType(options.dtype());
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto& module = modules[i];
    const auto& entry_a = parameters->entries()[i];
    const auto& entry_b = parameters->entries()[modules.size() + i];
    nn::LoraFactors factors;
    factors.scale = module.scale;
    factors.dropout = settings.dropout;
    factors.rank_dropout = settings.rank_dropout;
    factors.module_dropout = settings.module_dropout;
    factors.draw = static_cast<std::uint32_t>(i);
    factors.grad_a = TrainableParameters::view(parameters->gradient(), entry_a);
    factors.grad_b = TrainableParameters::view(parameters->gradient(), entry_b);
    fill_a(TrainableParameters::view(parameters->master(), entry_a), fan_in(module.site), seed,
           entry_a.name);
    factors.a = parameters->computed(entry_a, dtype);
    factors.b = parameters->computed(entry_b, dtype);
    auto delta = lora_delta(module.site, factors);
    if (settings.dora) {
      const auto& entry = parameters->entries()[2 * modules.size() + i];
      at::Tensor magnitude = TrainableParameters::view(parameters->master(), entry);
      magnitude.copy_(nn::row_squares(module.site.weight).sqrt_());
      delta = std::make_unique<nn::Dora>(std::move(delta), std::move(factors), module.site.weight,
                                         module.site.bias, magnitude,
                                         TrainableParameters::view(parameters->gradient(), entry));
    }
    module.site.attach(std::move(delta));
  }
  parameters->refresh();
  return parameters;
}

}  // namespace lorascale::adapters
