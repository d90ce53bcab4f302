// The verb `merge` for Stable Diffusion.
#include "adapters/formats/merge.hpp"

#include <ATen/TensorOperators.h>
#include <c10/util/accumulate.h>
#include <fmt/format.h>

#include <memory>
#include <utility>

#include "adapters/formats/embedding.hpp"
#include "adapters/formats/kohya.hpp"
#include "adapters/formats/picture_lora.hpp"
#include "base/error.hpp"
#include "models/diffusion/pipeline.hpp"
#include "nn/dtypes.hpp"
#include "workloads/diffusion/diffusion.hpp"
#include "workloads/diffusion/model_files.hpp"

namespace lorascale::workloads::diffusion {

std::string merge(const MergeRequest& request) {
  if (request.end_token_id) {
    throw Error(ExitCode::kUsage, "--end-token-id is for language models; leave it out");
  }
  if (request.output.extension() == ".safetensors" &&
      models::diffusion::is_pipeline_folder(request.model)) {
    throw Error(ExitCode::kUsage, request.model.string() +
                                      " is a folder, and so is what becomes of it; --output names "
                                      "one, without .safetensors");
  }
  const models::diffusion::PipelineSource source{request.model, {}};
  const auto shapes = models::diffusion::read_pipeline_shapes(source, std::nullopt);
  const auto file = adapters::picture_lora(request.adapter);
  const auto word = adapters::embedding_file(request.adapter);
  if (word && (!file || file == word)) {
    throw_bad_input(word->string() +
                    " is the embedding of a word, which is no part of the weights and cannot be "
                    "merged; give the file itself to programs (embeddings/ of WebUIs, "
                    "load_textual_inversion of diffusers)");
  }
  if (!file) {
    throw_bad_input(request.adapter.string() +
                    " is no LoRA file (.safetensors), nor a folder with " + adapters::kKohyaFile);
  }
  const auto sites = shapes->sites();
  const auto adapter = adapters::read_picture_lora(*file, sites);
  std::vector<std::string> keys;
  std::vector<std::pair<const adapters::PeftModule*, std::vector<std::int64_t>>> modules;
  for (const auto& site : sites) {
    if (const auto found = adapter.modules.find(site.name); found != adapter.modules.end()) {
      keys.push_back(site.name + ".weight");
      modules.emplace_back(&found->second, site.weight.sizes().vec());
    }
  }
  const auto stored = models::diffusion::stored_weights(source, keys);
  ChangedFiles changes;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const auto& [files, name, first, turned] = stored[i];
    changes[files][name].push_back(
        [&change = modules[i], first = first, &name = name](at::Tensor& tensor) {
          const auto& [module, sizes] = change;
          at::Tensor rows = tensor.narrow(0, first, sizes.front());
          if (rows.numel() != c10::multiply_integers(sizes)) {
            throw_bad_input("the adapter's change of " + name + " does not fit this model's shape");
          }
          // Files may hold as a convolution what is linear.
          rows.add_(module->weight_change(rows.view(sizes)).view(rows.sizes()));
        });
  }
  const auto written = write_model_files(request.model, changes, request.output,
                                         nn::float_type_named(request.dtype));
  const auto beside =
      word ? "; the word stays a file by itself, to be handed on beside it: " + word->string() : "";
  return fmt::format("merged {} layers into {}{}", adapter.modules.size(), written.string(),
                     beside);
}

}  // namespace lorascale::workloads::diffusion
