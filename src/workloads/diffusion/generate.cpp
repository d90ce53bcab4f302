// The verb `generate` for models that make pictures: base, adapter and prompt to a PNG file.
#include <ATen/ops/cat.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <system_error>

#include "adapters/formats/kohya.hpp"
#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "nn/dtypes.hpp"
#include "prepare/source_files.hpp"
#include "workloads/diffusion/adapted_pipeline.hpp"
#include "workloads/diffusion/diffusion.hpp"
#include "workloads/diffusion/picture_preview.hpp"
#include "workloads/diffusion/pipeline_of_config.hpp"

namespace lorascale::workloads::diffusion {
namespace {

// All weights of the run, where it trained them.
std::optional<std::filesystem::path> trained_model(const config::RunConfig& config) {
  const auto folder = std::filesystem::path(config.run.output_dir) / "model";
  const auto file = folder / std::filesystem::path(config.model.path).filename();
  for (const auto& path : {folder, file}) {
    if (config.adapter.trains_base() && models::diffusion::is_pipeline(path)) {
      return path;
    }
  }
  return std::nullopt;
}

bool changes_strength(const GenerateRequest& request) {
  return request.strengths != std::vector<double>{1};
}

Adapted adapt(models::diffusion::Pipeline& pipeline, const config::RunConfig& config,
              const GenerateRequest& request, double strength) {
  const auto path =
      request.adapter.value_or(std::filesystem::path(config.run.output_dir) / "adapter");
  if (const auto adapted = add_adapter(pipeline, config, path, strength)) {
    return *adapted;
  }
  if (request.adapter && std::filesystem::exists(path)) {
    throw_bad_input(path.string() +
                    " is neither a LoRA file nor an embedding (.safetensors), nor a folder with " +
                    adapters::kKohyaFile);
  }
  if (request.adapter || changes_strength(request)) {
    throw_bad_input(path.string() +
                    " does not exist; --adapter takes a LoRA file or the adapter/ of a run");
  }
  spdlog::warn("{} does not exist: this is the base model without an adapter", path.string());
  return {};
}

// As the data has them, where it is there; else what the model was made for.
UsualSize usual_size(const config::RunConfig& config,
                     const models::diffusion::PipelineConfig& pipeline) {
  std::error_code unknown;
  if (prepare::is_data_file(config.data.train) &&
      std::filesystem::is_regular_file(config.data.train, unknown)) {
    return usual_size_of(data::CaptionedFile(config.data.train));
  }
  const auto side = pipeline.unet.usual_side * pipeline.vae.factor();
  return {side, side};
}

}  // namespace

std::string generate(const config::RunConfig& config, at::Device device,
                     const GenerateRequest& request) {
  if (!request.prompt || request.decode || request.max_tokens) {
    throw Error(ExitCode::kUsage,
                "a model that makes pictures takes --prompt TEXT, --output FILE.png, --adapter and "
                "--strength");
  }
  const auto output = request.output.value_or("picture.png");
  if (output.extension() != ".png") {
    throw Error(ExitCode::kUsage,
                "--output takes a name that ends with .png, not " + output.string());
  }
  if (std::filesystem::exists(output)) {
    throw Error(ExitCode::kCannotWrite, output.string() + " is there; choose another --output");
  }
  if (output.has_parent_path()) {
    io::create_folders(output.parent_path());
  }
  auto source = source_of(config.model);
  const auto trained = trained_model(config);
  source.path = trained.value_or(source.path);
  std::vector<at::Tensor> pictures;
  std::string parameters;
  for (const auto strength : request.strengths) {
    auto pipeline =
        models::diffusion::load_pipeline(source, nn::float_type_named(config.model.dtype), device);
    Adapted adapted;
    if (!trained || request.adapter) {
      adapted = adapt(*pipeline, config, request, strength);
    } else if (changes_strength(request)) {
      throw Error(ExitCode::kUsage,
                  "--strength is of adapters, and this run trained all weights; "
                  "leave it out");
    }
    const auto usual = usual_size(config, pipeline->config());
    const models::diffusion::DiffusionModel model(std::move(pipeline), settings_of(config));
    const auto made =
        PicturePreview(model, config, {*request.prompt}, usual, "--prompt", adapted.new_word)
            .pictures();
    pictures.push_back(made.front().picture);
    parameters += (parameters.empty() ? "" : "\n") + made.front().parameters + adapted.parameters;
  }
  const at::Tensor beside = at::cat(pictures, 1);
  io::write_file_atomically(output, std::string_view(png_of(beside, parameters)));
  return fmt::format("{}\nwrote {}", parameters, output.string());
}

}  // namespace lorascale::workloads::diffusion
