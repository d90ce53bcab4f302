// The verb `export` for Stable Diffusion: a LoRA in another form.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <optional>
#include <set>
#include <utility>

#include "adapters/formats/diffusers_lora.hpp"
#include "adapters/formats/factor.hpp"
#include "adapters/formats/kohya.hpp"
#include "adapters/formats/kohya_layers.hpp"
#include "adapters/formats/low_rank.hpp"
#include "adapters/formats/part_names.hpp"
#include "adapters/formats/peft_parts.hpp"
#include "adapters/formats/picture_lora.hpp"
#include "adapters/formats/site_shape.hpp"
#include "base/error.hpp"
#include "base/units.hpp"
#include "io/safetensors.hpp"
#include "models/diffusion/pipeline.hpp"
#include "workloads/diffusion/diffusion.hpp"
#include "workloads/diffusion/model_tags.hpp"

namespace lorascale::workloads::diffusion {
namespace {

namespace fs = std::filesystem;
using adapters::PictureForm;
using Metadata = std::map<std::string, std::string>;

PictureForm form_named(const std::string& name) {
  return name == "peft"        ? PictureForm::kPeft
         : name == "diffusers" ? PictureForm::kDiffusers
                               : PictureForm::kKohya;
}

// Where it will lie: a file by its own name, or by that of its form in a folder.
fs::path place_of_output(PictureForm form, const fs::path& output) {
  const bool is_file = output.extension() == ".safetensors";
  if (form == PictureForm::kPeft && is_file) {
    throw Error(ExitCode::kUsage,
                "--to peft makes a folder for each part of the model; --output names the folder "
                "that will hold them, without .safetensors");
  }
  return is_file || form == PictureForm::kPeft ? output
         : form == PictureForm::kKohya         ? output / adapters::kKohyaFile
                                               : output / adapters::kDiffusersFile;
}

std::vector<fs::path> weight_files(PictureForm form, const fs::path& lora) {
  if (form != PictureForm::kPeft) {
    return {lora};
  }
  auto files = adapters::peft_parts(lora);
  for (auto& file : files) {
    file /= adapters::kPeftWeights;
  }
  return files;
}

at::ScalarType type_of(const std::vector<fs::path>& files) {
  std::set<at::ScalarType> types;
  for (const auto& file : files) {
    types.insert(adapters::stored_type(io::SafetensorsFile(file)));
  }
  return types.size() == 1 ? *types.begin() : at::kFloat;
}

// What the files say of themselves in sd-scripts' words, but for hashes.
Metadata metadata_of_files(const std::vector<fs::path>& files) {
  Metadata metadata = io::SafetensorsFile(files.front()).metadata();
  std::erase_if(metadata, [](const auto& entry) {
    const auto& key = entry.first;
    return (!key.starts_with("ss_") && !key.starts_with("modelspec.")) ||
           key == "modelspec.hash_sha256";
  });
  return metadata;
}

// The number that all have; else what is said already, if that is one of them.
void say_number(const std::set<std::string>& numbers, std::string& said) {
  if (numbers.size() == 1) {
    said = *numbers.begin();
  } else if (!numbers.contains(said)) {
    said = "Dynamic";  // sd-scripts' word for many
  }
}

void write_kohya(const fs::path& output, const std::map<std::string, adapters::PeftModule>& modules,
                 const std::vector<nn::Site>& sites, at::ScalarType type, Metadata metadata) {
  std::map<std::string, adapters::KohyaLayer> layers;
  std::set<std::string> ranks, alphas;
  for (const auto& site : sites) {
    if (const auto found = modules.find(site.name); found != modules.end()) {
      const auto& [a, b, alpha, scale, magnitude, scaling] = found->second;
      // These files know alpha / rank alone.
      const double as_said = scale * static_cast<double>(a.size(0));
      layers.emplace(site.kohya_name, adapters::KohyaLayer{a, b, as_said, magnitude});
      ranks.insert(std::to_string(a.size(0)));
      alphas.insert(adapters::kohya_number(as_said));
    }
  }
  metadata.emplace("format", "pt");
  metadata.emplace("ss_network_module", "networks.lora");
  say_number(ranks, metadata["ss_network_dim"]);
  say_number(alphas, metadata["ss_network_alpha"]);
  adapters::write_kohya_layers(output, layers, type, std::move(metadata));
}

void check_export(const fs::path& output, const std::vector<nn::Site>& sites,
                  const adapters::PeftAdapter& adapter) {
  constexpr double kRounding = 1e-6;
  const auto written = adapters::read_picture_lora(output, sites);
  for (const auto& [name, module] : adapter.modules) {
    const auto found = written.modules.find(name);
    const auto same_lengths = [&](const at::Tensor& other) {
      return module.magnitude.defined() == other.defined() &&
             (!other.defined() || module.magnitude.equal(other));
    };
    if (found == written.modules.end() || !same_lengths(found->second.magnitude) ||
        adapters::norm_of_difference(module, found->second) >
            kRounding * adapters::norm_of_change(module)) {
      throw Error(ExitCode::kInternal, output.string() + ": the written adapter differs in " +
                                           name + " from what it was made of; do not use it");
    }
  }
}

}  // namespace

std::string export_adapter(const ExportRequest& request) {
  const auto lora = adapters::picture_lora(request.adapter);
  const auto form = lora ? adapters::form_of_picture_lora(*lora) : std::nullopt;
  if (!form) {
    throw_bad_input(request.adapter.string() +
                    " is no LoRA of pictures: a file of sd-scripts' form or of diffusers' "
                    "(.safetensors), or a folder with unet/ or text_encoder/ of PEFT's");
  }
  const auto target = form_named(request.form);
  if (target == *form) {
    throw Error(ExitCode::kUsage, lora->string() + " is of the form " + request.form +
                                      " already; copy it, or choose another --to");
  }
  const auto output = place_of_output(target, request.output);
  const auto shapes = models::diffusion::read_pipeline_shapes({request.model, {}}, std::nullopt);
  const auto sites = shapes->sites();
  const auto adapter = adapters::read_picture_lora(*lora, sites);
  if (adapter.ia3) {
    throw_bad_input(lora->string() +
                    " is of IA3, which no other form has for pictures; merge it into its model");
  }
  if (adapter.settings.dora && target == PictureForm::kDiffusers) {
    throw_bad_input(lora->string() +
                    " is of DoRA, whose magnitudes diffusers leaves out of what it loads; export "
                    "it to peft, or merge it into its model");
  }
  auto as_in_files = adapter;
  std::set<std::string> parts;
  for (const auto& site : sites) {
    if (const auto found = as_in_files.modules.find(site.name);
        found != as_in_files.modules.end()) {
      auto& module = found->second;
      module.a = adapters::as_stored(site, module.a);
      module.b = adapters::as_stored(site, module.b);
      parts.insert(adapters::part_of_layer(site.name));
    }
  }
  const auto files = weight_files(*form, *lora);
  const auto type = type_of(files);
  auto metadata = metadata_of_files(files);
  switch (target) {
    case PictureForm::kPeft:
      adapters::write_peft_parts(output, as_in_files, sites, type, request.model, metadata);
      break;
    case PictureForm::kDiffusers:
      adapters::write_diffusers_lora(output, as_in_files.modules, type);
      break;
    case PictureForm::kKohya: {
      const auto& config = shapes->config();
      metadata.merge(
          tags_of_model(config, config.noise.prediction == models::diffusion::Prediction::kVelocity,
                        request.model));
      write_kohya(output, as_in_files.modules, sites, type, std::move(metadata));
      break;
    }
  }
  check_export(output, sites, adapter);
  return fmt::format("exported {} of {} to {}", counted(std::ssize(adapter.modules), "layer"),
                     fmt::join(parts, ", "), output.string());
}

}  // namespace lorascale::workloads::diffusion
