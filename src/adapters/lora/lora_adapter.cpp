#include "adapters/lora/lora_adapter.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "adapters/base_name.hpp"
#include "adapters/formats/kohya.hpp"
#include "adapters/formats/peft.hpp"
#include "adapters/formats/picture_lora.hpp"
#include "adapters/token/token_rows.hpp"
#include "base/error.hpp"
#include "nn/dora.hpp"

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

bool has_kohya_names(const std::vector<nn::Site>& sites) {
  return !sites.empty() && !sites.front().kohya_name.empty();
}

std::optional<PeftAdapter> adapter_to_begin_from(const config::AdapterSection& section,
                                                 const AdaptedModel& model) {
  if (!section.init_from) {
    return std::nullopt;
  }
  if (has_kohya_names(model.sites)) {
    if (const auto lora = picture_lora(*section.init_from)) {
      return read_picture_lora(*lora, model.sites);
    }
    throw_bad_input("adapter.init_from: " + *section.init_from +
                    " is no LoRA file (.safetensors), nor a folder with " + kKohyaFile);
  }
  return read_peft_adapter(*section.init_from);
}

// Files of sd-scripts' form say of each layer what there is; they have no targets beside.
std::vector<LoraModule> modules_of(const LoraSettings& settings, const AdaptedModel& model,
                                   const std::optional<PeftAdapter>& start) {
  std::vector<LoraModule> modules;
  if (!start || !has_kohya_names(model.sites)) {
    modules = match_lora_targets(model, settings);
    take_rates(settings, modules);
    return modules;
  }
  for (const auto& site : model.sites) {
    if (const auto found = start->modules.find(site.name); found != start->modules.end()) {
      const auto& module = found->second;
      modules.push_back({site, module.a.size(0), module.alpha, module.scale});
    }
  }
  take_rates(settings, modules);
  return modules;
}

TokenRows word_of(const config::AdapterSection& section, const AdaptedModel& model) {
  std::optional<Embedding> start;
  if (section.token.word && section.init_from) {
    if (const auto file = embedding_file(*section.init_from)) {
      start = read_embedding(*file);
    }
  }
  return {section.token, model.token_tables, std::move(start)};
}

class LoraAdapter : public Adapter {
 public:
  LoraAdapter(std::vector<LoraModule> modules, std::vector<nn::Site> sites, LoraSettings settings,
              TokenRows word, std::uint64_t seed)
      : modules_(std::move(modules)),
        sites_(std::move(sites)),
        settings_(std::move(settings)),
        word_(std::move(word)),
        parameters_(attach_lora(modules_, settings_, seed, word_.groups())) {
    word_.attach(*parameters_, seed);
  }

  void begin_from(const PeftAdapter& adapter, const std::filesystem::path& base) {
    load_peft_adapter(adapter, modules_, *parameters_);
    if (!adapter.base_model.empty()) {
      warning_ = warning_of_other_base(adapter, base);
    }
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
    std::vector<at::Tensor> squares;
    for (std::size_t i = 0; i < modules_.size(); ++i) {
      if (settings_.dora) {
        const auto views = views_of(*parameters_, parameters_->master(), modules_.size(), i);
        nn::LoraFactors factors;
        factors.a = views.a;
        factors.b = views.b;
        factors.scale = modules_[i].scale;
        squares.push_back(
            nn::dora_change(modules_[i].site.weight, factors, views.magnitude).square().sum());
        continue;
      }
      const double scale = modules_[i].scale;
      squares.push_back(
          product_square(matrices_of(*parameters_, parameters_->master(), modules_.size(), i)) *
          (scale * scale));
    }
    const auto square = at::stack(squares).to(at::kDouble).sum().item<double>();
    return std::sqrt(std::max(0.0, square) / *weight_square_);
  }

  void constrain() override {
    if (settings_.most_change > 0) {
      const at::NoGradGuard no_grad;
      limit_changes(modules_, settings_.most_change, *parameters_);
    }
  }

  void write(const std::filesystem::path& folder, const ExportContext& context) const override {
    if (has_kohya_names(sites_)) {
      write_kohya_adapter(folder / kKohyaFile, modules_, settings_, *parameters_, context);
      word_.write(folder, *parameters_, context);
    } else {
      write_peft_adapter(folder, modules_, sites_, settings_, *parameters_, context);
    }
  }

 private:
  std::vector<LoraModule> modules_;
  std::vector<nn::Site> sites_;
  LoraSettings settings_;
  TokenRows word_;  // beside them, if there is one
  std::unique_ptr<TrainableParameters> parameters_;
  std::optional<std::string> warning_;
  std::optional<double> weight_square_;
};

}  // namespace

LoraSettings lora_settings(const config::AdapterSection& section) {
  LoraSettings settings;
  settings.rank = section.rank;
  settings.alpha = section.alpha;
  settings.dropout = section.dropout;
  settings.rank_dropout = section.rank_dropout;
  settings.module_dropout = section.module_dropout;
  settings.most_change = section.scale_weight_norms;
  settings.rslora = section.rslora;
  settings.dora = section.dora;
  settings.lr_ratio = section.lr_ratio;
  settings.targets = section.targets;
  settings.rank_pattern = section.rank_pattern;
  settings.alpha_pattern = section.alpha_pattern;
  settings.lr_pattern = section.lr_pattern;
  return settings;
}

std::unique_ptr<Adapter> make_lora_adapter(const config::AdapterSection& section,
                                           const AdaptedModel& model, std::uint64_t seed) {
  const auto settings = lora_settings(section);
  const auto start = adapter_to_begin_from(section, model);
  auto adapter = std::make_unique<LoraAdapter>(modules_of(settings, model, start), model.sites,
                                               settings, word_of(section, model), seed);
  if (start) {
    adapter->begin_from(*start, model.base);
  }
  return adapter;
}

void check_lora_adapter(const config::AdapterSection& section, const AdaptedModel& model) {
  modules_of(lora_settings(section), model, adapter_to_begin_from(section, model));
  word_of(section, model);
}

}  // namespace lorascale::adapters
