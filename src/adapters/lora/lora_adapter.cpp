#include "adapters/lora/lora_adapter.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "adapters/base_name.hpp"
#include "adapters/formats/kohya.hpp"
#include "adapters/formats/peft.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

double square_of_weights(const std::vector<LoraModule>& modules) {
  double sum = 0;
  for (const auto& module : modules) {
    const double norm =
        at::linalg_vector_norm(module.site.weight, 2, std::nullopt, false, at::kFloat)
            .item<double>();
    sum += norm * norm;
  }
  return sum;
}

class LoraAdapter : public Adapter {
 public:
  LoraAdapter(std::vector<LoraModule> modules, std::vector<nn::Site> sites, LoraSettings settings,
              std::uint64_t seed)
      : modules_(std::move(modules)),
        sites_(std::move(sites)),
        settings_(std::move(settings)),
        parameters_(attach_lora(modules_, settings_, seed)) {}

  void begin_from(const std::filesystem::path& folder, const std::filesystem::path& base) {
    const auto adapter = read_peft_adapter(folder);
    load_peft_adapter(adapter, modules_, *parameters_);
    warning_ = warning_of_other_base(adapter, base);
  }

  TrainableParameters& parameters() override { return *parameters_; }
  [[nodiscard]] std::string_view result_name() const override { return "adapter"; }
  [[nodiscard]] std::optional<std::string> warning() const override { return warning_; }

  std::optional<double> movement() override {
    const at::NoGradGuard no_grad;
    if (!weight_square_) {
      weight_square_ = square_of_weights(modules_);
    }
    if (!(*weight_square_ > 0)) {
      return std::nullopt;
    }
    // |B A|^2 = tr(A A' B' B): two small squares of size [rank, rank].
    std::vector<at::Tensor> squares;
    for (std::size_t i = 0; i < modules_.size(); ++i) {
      const auto [a, b] = matrices_of(*parameters_, parameters_->master(), modules_.size(), i);
      const double scale = modules_[i].scale;
      squares.push_back((at::mm(a, a.t()) * at::mm(b.t(), b)).sum() * (scale * scale));
    }
    const auto square = at::stack(squares).to(at::kDouble).sum().item<double>();
    return std::sqrt(std::max(0.0, square) / *weight_square_);
  }

  void write(const std::filesystem::path& folder, const ExportContext& context) const override {
    if (context.kohya) {
      write_kohya_adapter(folder / kKohyaFile, modules_, settings_, *parameters_, context);
    } else {
      write_peft_adapter(folder, modules_, sites_, settings_, *parameters_, context);
    }
  }

 private:
  std::vector<LoraModule> modules_;
  std::vector<nn::Site> sites_;
  LoraSettings settings_;
  std::unique_ptr<TrainableParameters> parameters_;
  std::optional<std::string> warning_;
  std::optional<double> weight_square_;
};

}  // namespace

LoraSettings lora_settings(const config::AdapterSection& section) {
  return {section.rank,     section.alpha,   section.dropout,      section.rslora,
          section.lr_ratio, section.targets, section.rank_pattern, section.alpha_pattern};
}

std::unique_ptr<Adapter> make_lora_adapter(const config::AdapterSection& section,
                                           const AdaptedModel& model, std::uint64_t seed) {
  const auto settings = lora_settings(section);
  auto adapter = std::make_unique<LoraAdapter>(match_lora_targets(model, settings), model.sites,
                                               settings, seed);
  if (section.init_from) {
    adapter->begin_from(*section.init_from, model.base);
  }
  return adapter;
}

void check_lora_adapter(const config::AdapterSection& section, const AdaptedModel& model) {
  match_lora_targets(model, lora_settings(section));
}

}  // namespace lorascale::adapters
