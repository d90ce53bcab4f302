// LoRA (Hu et al. 2021): W x + s B A x on chosen layers, linear or convolutions (where A is a
// convolution of the same shape to r channels, and B one of 1 x 1); s = alpha / r, or alpha /
// sqrt(r) (rsLoRA, Kalajdzievski 2023). A starts uniform in ±1/sqrt(in), B at zero, so that a fresh
// adapter changes nothing.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "adapters/adapter.hpp"
#include "adapters/parameters.hpp"
#include "nn/site.hpp"

namespace lorascale::adapters {

struct LoraSettings {
  std::int64_t rank = 8;
  double alpha = 16.0;
  double dropout = 0.0;
  double rank_dropout = 0.0;
  double module_dropout = 0.0;
  double most_change = 0.0;  // of a layer, |dW|; 0: no limit
  bool rslora = false;
  bool dora = false;                 // nn/dora.hpp
  double lr_ratio = 1.0;             // LoRA+: rate of B over rate of A
  std::vector<std::string> targets;  // suffixes, "all-linear", or one regular expression
  std::map<std::string, std::int64_t> rank_pattern;  // suffix or regex -> rank
  std::map<std::string, double> alpha_pattern;
  std::map<std::string, double> lr_pattern;  // suffix or regex -> factor of the run's rate

  [[nodiscard]] double scale(std::int64_t module_rank, double module_alpha) const;
};

// One adapted layer.
struct LoraModule {
  nn::Site site;  // its name is the module path, e.g. "model.layers.0.self_attn.q_proj"
  std::int64_t rank = 0;
  double alpha = 0.0;
  double scale = 0.0;
  double lr_ratio = 1.0;  // of the run's rate
};

// Which layers the settings name. Throws Error(kBadConfig) where a target or a pattern matches
// nothing, listing what there is to match, or where a target names a part of the model that takes
// no adapter yet.
std::vector<LoraModule> match_lora_targets(const AdaptedModel& model, const LoraSettings& settings);

// Gives modules the rates of their own that lr_pattern has for them, and puts those of one rate
// together. Error(kBadConfig) where a pattern matches none of them.
void take_rates(const LoraSettings& settings, std::vector<LoraModule>& modules);

// Names of a module's tensors, as PEFT writes them without its prefix.
std::string lora_a_name(const std::string& module);
std::string lora_b_name(const std::string& module);
std::string dora_name(const std::string& module);

// Makes the parameters, fills A from (seed, name) and B with zeros, and connects them to the
// layers, which must outlive the result; the flat vector lives on the layers' device. `more` are
// groups behind LoRA's own.
std::unique_ptr<TrainableParameters> attach_lora(
    const std::vector<LoraModule>& modules, const LoraSettings& settings, std::uint64_t seed,
    std::vector<TrainableParameters::GroupSpec> more = {});

// A module of `modules` as it stands in the flat vector: A, B and with DoRA the magnitudes [out],
// in the shapes of their entries, views of it.
struct LoraViews {
  at::Tensor a, b, magnitude;
};
LoraViews views_of(const TrainableParameters& parameters, const at::Tensor& flat,
                   std::size_t modules, std::size_t i);

// Module `i` of `modules` in the flat vector `flat` laid out by attach_lora(): matrices
// A [rank, in * kernel] and B [out, rank], views of it.
struct LoraMatrices {
  at::Tensor a, b;
};
LoraMatrices matrices_of(const TrainableParameters& parameters, const at::Tensor& flat,
                         std::size_t modules, std::size_t i);

// |B A|^2, fp32 [], of factors A [rank, in] and B [out, rank]: tr(A A' B' B), of two small squares.
at::Tensor product_square(const LoraMatrices& factors);

// Where |scale B A| of a module is larger than `most`, both factors by the same number, so that it
// is `most` (sd-scripts calls it scale_weight_norms). Waits for nothing.
void limit_changes(const std::vector<LoraModule>& modules, double most,
                   TrainableParameters& parameters);

}  // namespace lorascale::adapters
