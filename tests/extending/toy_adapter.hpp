// The template of "add an adapter" (docs/extending.md): each output of a layer is scaled by a
// number of its own, y' = (1 + l) y. A Delta, and an Adapter that attaches it and writes a file.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <utility>

#include "adapters/adapter.hpp"
#include "adapters/targets.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors_writer.hpp"
#include "nn/delta.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::toys {

class ScaleDelta : public nn::Delta {
 public:
  ScaleDelta(at::Tensor l, at::Tensor grad) : l_(std::move(l)), grad_(std::move(grad)) {}

  void forward(const at::Tensor& /*x*/, at::Tensor& y, const nn::SampleRows* /*rows*/,
               nn::DeltaSaved* saved) const override {
    if (saved != nullptr) {
      saved->push_back(y.clone());
    }
    y.mul_(l_ + 1);
  }
  [[nodiscard]] bool changes_output_gradient() const override { return true; }
  void to_output_gradient(at::Tensor& dy, const nn::DeltaSaved& /*saved*/) const override {
    dy.mul_(l_ + 1);
  }
  void backward(const at::Tensor& dy, const at::Tensor& /*x*/, const nn::SampleRows* /*rows*/,
                const nn::DeltaSaved& saved, at::Tensor& /*dx*/) const override {
    at::Tensor(grad_).add_((dy * saved[0]).sum(0));
  }
  [[nodiscard]] at::Tensor weight_change(const at::Tensor& weight) const override {
    return l_.unsqueeze(1) * weight;
  }
  [[nodiscard]] std::int64_t kept_width() const override { return l_.numel(); }

 private:
  at::Tensor l_, grad_;  // [out]: views of the master vector and the gradient
};

class ScaleAdapter : public adapters::Adapter {
 public:
  explicit ScaleAdapter(const config::AdapterSection& section,
                        const adapters::AdaptedModel& model) {
    adapters::Targets targets(section.targets);
    adapters::TrainableParameters::GroupSpec spec{{"scales"}, {}};
    spec.group.starts_at_zero = true;
    std::vector<nn::Site> chosen;
    for (const auto& site : model.sites) {
      if (targets.names(site)) {
        chosen.push_back(site);
        spec.entries.push_back({site.name + ".scale", {site.out_features()}});
      }
    }
    targets.require_all_used(model);
    parameters_ = std::make_unique<adapters::TrainableParameters>(std::vector{std::move(spec)},
                                                                  chosen.front().weight.device());
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const auto& entry = parameters_->entries()[i];
      chosen[i].attach(std::make_unique<ScaleDelta>(
          parameters_->computed(entry, chosen[i].weight.scalar_type()),
          adapters::TrainableParameters::view(parameters_->gradient(), entry)));
    }
  }

  adapters::TrainableParameters& parameters() override { return *parameters_; }
  [[nodiscard]] std::string_view result_name() const override { return "adapter"; }
  void write(const std::filesystem::path& folder,
             const adapters::ExportContext& /*context*/) const override {
    io::create_folders(folder);
    std::vector<io::TensorToWrite> tensors;
    const at::Tensor master = parameters_->master().cpu();
    for (const auto& entry : parameters_->entries()) {
      const at::Tensor view = adapters::TrainableParameters::view(master, entry);
      tensors.push_back({entry.name, io::Dtype::kF32, entry.shape, nn::bytes_of(view)});
    }
    io::write_safetensors(folder / "scales.safetensors", tensors, {});
  }

 private:
  std::unique_ptr<adapters::TrainableParameters> parameters_;
};

}  // namespace lorascale::toys
