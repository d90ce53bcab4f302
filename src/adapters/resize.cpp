#include "adapters/resize.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "adapters/formats/factor.hpp"
#include "adapters/formats/ia3.hpp"
#include "adapters/formats/kohya.hpp"
#include "adapters/formats/kohya_layers.hpp"
#include "adapters/formats/low_rank.hpp"
#include "adapters/formats/peft.hpp"
#include "adapters/targets.hpp"
#include "base/error.hpp"
#include "base/units.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors.hpp"
#include "io/strict_json.hpp"

namespace lorascale::adapters {
namespace {

namespace fs = std::filesystem;

using Modules = std::map<std::string, PeftModule>;  // by the names of their form

[[noreturn]] void refuse_dora(const fs::path& adapter) {
  throw_bad_input(adapter.string() +
                  " is of DoRA, whose magnitudes belong to the whole change and to no part of it; "
                  "merge it into its model instead");
}

[[noreturn]] void refuse_ia3(const fs::path& adapter) {
  throw_bad_input(adapter.string() + " is of IA3, whose changes have no rank to lower");
}

void require_form_of_output(const fs::path& output, bool is_file) {
  if ((output.extension() == ".safetensors") != is_file) {
    throw Error(ExitCode::kUsage,
                is_file ? "the adapter is a LoRA file, and so is what becomes of it; --output "
                          "takes a name that ends with .safetensors"
                        : "the adapter is a PEFT folder, and so is what becomes of it; --output "
                          "names one, without .safetensors");
  }
}

Modules truncated_all(const Modules& modules, const ResizeRequest& request,
                      const LoraSettings& settings) {
  Modules result;
  std::int64_t most = 1;
  for (const auto& [name, module] : modules) {
    const auto& added =
        result.emplace(name, truncated(module, {request.rank, request.share}, settings))
            .first->second;
    most = std::max(most, added.a.size(0));
  }
  for (auto& [name, module] : result) {
    if (module.a.size(0) < most) {
      module = with_alpha_of(module, modules.at(name).scale, most, settings);
    }
  }
  return result;
}

// "16", "4, 8", "1 to 16, 5.3 in the mean".
std::string ranks_text(const Modules& modules) {
  constexpr std::size_t kFew = 4;
  std::set<std::int64_t> ranks;
  double sum = 0;
  for (const auto& [name, module] : modules) {
    ranks.insert(module.a.size(0));
    sum += static_cast<double>(module.a.size(0));
  }
  return ranks.size() <= kFew
             ? fmt::format("{}", fmt::join(ranks, ", "))
             : fmt::format("{} to {}, {:.1f} in the mean", *ranks.begin(), *ranks.rbegin(),
                           sum / static_cast<double>(modules.size()));
}

std::string size_text(const fs::path& file) {
  return fmt::format("{:.2f} MB", static_cast<double>(fs::file_size(file)) / 1e6);
}

// What of the adapter was lost, by the files themselves.
std::string report(const Modules& before, const Modules& after, const fs::path& old_file,
                   const fs::path& new_file, const fs::path& output) {
  double square = 0, lost_square = 0, worst = -1;
  std::string where;
  for (const auto& [name, module] : before) {
    const double norm = norm_of_change(module);
    const double lost = norm_of_difference(module, after.at(name));
    square += norm * norm;
    lost_square += lost * lost;
    if (const double part = norm > 0 ? lost / norm : 0; part > worst) {
      worst = part;
      where = name;
    }
  }
  return fmt::format(
      "resized {}: rank {} -> {}\n"
      "|dW - dW'| / |dW|: {:.4g} in all, {:.4g} in the worst layer, {}\n"
      "{} -> {}: {}",
      counted(std::ssize(before), "layer"), ranks_text(before), ranks_text(after),
      square > 0 ? std::sqrt(lost_square / square) : 0, worst, where, size_text(old_file),
      size_text(new_file), output.string());
}

void check_written(const Modules& made, const Modules& written, at::ScalarType type,
                   const fs::path& output) {
  for (const auto& [name, module] : made) {
    const auto& found = written.at(name);
    const auto rounded = [&](const at::Tensor& x) { return x.to(type).to(at::kFloat); };
    if (!found.a.equal(rounded(module.a)) || !found.b.equal(rounded(module.b)) ||
        std::abs(found.scale - module.scale) > 1e-12 * module.scale) {
      throw Error(ExitCode::kInternal, output.string() + ": the written adapter differs in " +
                                           name + " from what it should be; do not use it");
    }
  }
}

// --- files of sd-scripts' form ---

Modules read_layers(const io::SafetensorsFile& file) {
  Modules modules;
  for (const auto& name : kohya_layer_names(file)) {
    const auto layer = read_kohya_layer(file, name);
    modules.emplace(name, PeftModule{layer.a, layer.b, layer.alpha,
                                     layer.alpha / static_cast<double>(layer.a.size(0))});
  }
  return modules;
}

// As sd-scripts writes it after its own resizing.
io::SafetensorsMetadata resized_metadata(io::SafetensorsMetadata metadata, const Modules& modules,
                                         const ResizeRequest& request) {
  std::erase_if(metadata, [](const auto& entry) {
    return entry.first.starts_with("sshs_") || entry.first == "modelspec.hash_sha256";
  });
  const auto dim = metadata.find("ss_network_dim");
  if (dim == metadata.end()) {
    return metadata;  // a file that says nothing of itself; readers take few words for others
  }
  std::int64_t rank = 0;
  double alpha = 0;
  bool one_rank = true, one_alpha = true;
  for (const auto& [name, module] : modules) {
    one_rank = one_rank && (rank == 0 || rank == module.a.size(0));
    one_alpha = one_alpha && (rank == 0 || alpha == module.alpha);
    if (module.a.size(0) > rank) {
      rank = module.a.size(0);
      alpha = module.alpha;
    }
  }
  const std::string dynamic = "Dynamic";
  const auto new_dim = one_rank || request.rank ? std::to_string(rank) : dynamic;
  auto& comment = metadata["ss_training_comment"];
  comment = fmt::format("dimension is resized from {} to {}; {}", dim->second, new_dim, comment);
  dim->second = new_dim;
  metadata["ss_network_alpha"] = one_alpha || request.rank ? kohya_number(alpha) : dynamic;
  return metadata;
}

std::string resize_file(const fs::path& path, const ResizeRequest& request) {
  require_form_of_output(request.output, true);
  const io::SafetensorsFile file(path);
  if (is_kohya_dora(path)) {
    refuse_dora(path);
  }
  if (is_kohya_ia3(file)) {
    refuse_ia3(path);
  }
  const auto before = read_layers(file);
  const auto after = truncated_all(before, request, {});
  std::map<std::string, KohyaLayer> layers;
  for (const auto& [name, module] : after) {
    layers.emplace(name, KohyaLayer{module.a, module.b, module.alpha});
  }
  const auto type = request.type.value_or(stored_type(file));
  write_kohya_layers(request.output, layers, type,
                     resized_metadata(file.metadata(), after, request));
  const auto written = read_layers(io::SafetensorsFile(request.output));
  check_written(after, written, type, request.output);
  return report(before, written, path, request.output, request.output);
}

// --- folders of PEFT's ---

template <class Number>
Number most_frequent(const std::map<Number, std::int64_t>& counts) {
  return std::ranges::max_element(counts, {}, [](const auto& entry) { return entry.second; })
      ->first;
}

nlohmann::ordered_json resized_config(nlohmann::ordered_json config, const Modules& modules) {
  std::map<std::int64_t, std::int64_t> ranks;
  std::map<double, std::int64_t> alphas;
  for (const auto& [name, module] : modules) {
    ++ranks[module.a.size(0)];
    ++alphas[module.alpha];
  }
  const auto rank = most_frequent(ranks);
  const auto alpha = most_frequent(alphas);
  auto rank_pattern = nlohmann::ordered_json::object(), alpha_pattern = rank_pattern;
  for (const auto& [name, module] : modules) {
    if (module.a.size(0) != rank) {
      rank_pattern[key_of_layer(name)] = module.a.size(0);
    }
    if (module.alpha != alpha) {
      alpha_pattern[key_of_layer(name)] = module.alpha;
    }
  }
  config["r"] = rank;
  config["lora_alpha"] = alpha;
  config["rank_pattern"] = rank_pattern;
  config["alpha_pattern"] = alpha_pattern;
  return config;
}

std::string resize_folder(const fs::path& folder, const ResizeRequest& request) {
  require_form_of_output(request.output, false);
  const auto before = read_peft_adapter(folder);
  if (before.settings.dora) {
    refuse_dora(folder);
  }
  if (before.ia3) {
    refuse_ia3(folder);
  }
  const auto after = truncated_all(before.modules, request, before.settings);
  const io::SafetensorsFile file(folder / kPeftWeights);
  const auto type = request.type.value_or(stored_type(file));
  FactorsToWrite factors(type);
  for (const auto& [name, module] : after) {
    factors.add(std::string(kPeftPrefix) + lora_a_name(name), module.a);
    factors.add(std::string(kPeftPrefix) + lora_b_name(name), module.b);
  }
  const auto config = resized_config(io::read_ordered_json_file(folder / kPeftConfig), after);
  io::create_folders(request.output);
  io::write_safetensors(request.output / kPeftWeights, factors.tensors(), file.metadata());
  io::write_file_atomically(request.output / kPeftConfig, std::string_view(config.dump(2) + "\n"));
  const auto written = read_peft_adapter(request.output);
  check_written(after, written.modules, type, request.output);
  return report(before.modules, written.modules, folder / kPeftWeights,
                request.output / kPeftWeights, request.output);
}

}  // namespace

std::string resize_adapter(const ResizeRequest& request) {
  std::error_code unknown;
  if (!fs::exists(request.adapter, unknown)) {
    throw_bad_input(request.adapter.string() + " does not exist");
  }
  for (const auto& folder : {request.adapter, request.adapter / "adapter"}) {
    if (fs::is_regular_file(folder / kPeftConfig, unknown)) {
      return resize_folder(folder, request);
    }
  }
  const auto file = kohya_file(request.adapter);
  if (!file || !is_kohya_adapter(*file)) {
    throw_bad_input(request.adapter.string() + " is no LoRA that can be resized: a PEFT folder (" +
                    kPeftConfig +
                    "), a file of sd-scripts' form (.safetensors), or a run with one of them");
  }
  return resize_file(*file, request);
}

}  // namespace lorascale::adapters
