// An adapter folder in words: its layers with the sizes of what they change.
#include <ATen/ops/linalg_vector_norm.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "adapters/adapter.hpp"
#include "adapters/formats/embedding.hpp"
#include "adapters/formats/ia3.hpp"
#include "adapters/formats/peft.hpp"
#include "adapters/formats/picture_lora.hpp"
#include "base/units.hpp"

namespace lorascale::adapters {

namespace {

// Of pictures: layers, a word, or both.
struct PictureFiles {
  std::optional<std::filesystem::path> lora, word;
};
PictureFiles picture_files(const std::filesystem::path& path) {
  PictureFiles files{picture_lora(path), embedding_file(path)};
  if (files.word && files.lora == files.word) {
    files.lora.reset();
  }
  return files;
}

}  // namespace

bool is_adapter(const std::filesystem::path& path) {
  std::error_code unknown;
  if (std::filesystem::exists(path / kPeftConfig, unknown)) {
    return true;
  }
  const auto is_it = [&](const std::filesystem::path& file) {
    return file == path || file.parent_path() == path;  // a run is more than its adapter
  };
  const auto [lora, word] = picture_files(path);
  return (word && is_it(*word)) || (lora && is_it(*lora) && form_of_picture_lora(*lora));
}

std::string summarise_adapter(const std::filesystem::path& folder) {
  const auto [lora, word] = picture_files(folder);
  if (lora || word) {
    return (lora ? summarise_picture_lora(*lora) : "") + (lora && word ? ", " : "") +
           (word ? summarise_embedding(*word) : "");
  }
  const auto adapter = read_peft_adapter(folder);
  if (adapter.ia3) {
    return summarise_ia3(adapter.modules.size());
  }
  return fmt::format("LoRA rank {} on {}", adapter.settings.rank,
                     counted(static_cast<std::int64_t>(adapter.modules.size()), "layer"));
}

std::string describe_adapter(const std::filesystem::path& folder) {
  const auto [lora, word] = picture_files(folder);
  if (lora || word) {
    return (lora ? describe_picture_lora(*lora) : "") + (word ? describe_embedding(*word) : "");
  }
  const auto adapter = read_peft_adapter(folder);
  if (adapter.ia3) {
    return fmt::format("PEFT adapter for '{}': {}\n", adapter.base_model,
                       summarise_ia3(adapter.modules.size())) +
           describe_ia3(adapter.modules);
  }
  std::string text = fmt::format("PEFT LoRA adapter for '{}': {} layers, rank {}, alpha {}{}\n",
                                 adapter.base_model, adapter.modules.size(), adapter.settings.rank,
                                 adapter.settings.alpha,
                                 adapter.settings.dora     ? ", DoRA"
                                 : adapter.settings.rslora ? ", rsLoRA"
                                                           : "");
  std::int64_t parameters = 0;
  for (const auto& [name, module] : adapter.modules) {
    parameters += module.a.numel() + module.b.numel() +
                  (module.magnitude.defined() ? module.magnitude.numel() : 0);
    const at::Tensor change = module.low_rank_change();
    const double norm = at::linalg_vector_norm(change).item<double>();
    text += fmt::format("  {:<48} rank {:<4} [{}]  |dW| {:.4g}\n", name, module.a.size(0),
                        fmt::join(change.sizes(), " x "), norm);
  }
  return text + fmt::format("{} parameters\n", parameters);
}

}  // namespace lorascale::adapters
