// What models of a pipeline's parts have in common: the pipeline, of which each trains some.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "models/diffusion/pipeline.hpp"
#include "models/model.hpp"

namespace lorascale::models::diffusion {

class PipelineModel : public Model {
 public:
  explicit PipelineModel(std::unique_ptr<Pipeline> pipeline) : pipeline_(std::move(pipeline)) {}

  [[nodiscard]] Pipeline& pipeline() { return *pipeline_; }
  [[nodiscard]] const Pipeline& pipeline() const { return *pipeline_; }

  [[nodiscard]] std::string family() const override {
    return variant_name(pipeline_->config().variant);
  }
  [[nodiscard]] at::Device device() const override { return pipeline_->unet().device(); }

 private:
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace lorascale::models::diffusion
