// An adapter folder in words: its layers with the sizes of what they change.
#include <ATen/ops/linalg_vector_norm.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "adapters/adapter.hpp"
#include "adapters/formats/kohya.hpp"
#include "adapters/formats/peft.hpp"
#include "base/units.hpp"

namespace lorascale::adapters {

bool is_adapter(const std::filesystem::path& path) {
  std::error_code unknown;
  if (std::filesystem::exists(path / kPeftConfig, unknown)) {
    return true;
  }
  const auto file = kohya_file(path);  // of a run, too, which is more than its adapter
  return file && (*file == path || file->parent_path() == path) && is_kohya_adapter(*file);
}

std::string summarise_adapter(const std::filesystem::path& folder) {
  if (const auto file = kohya_file(folder)) {
    return summarise_kohya_adapter(*file);
  }
  const auto adapter = read_peft_adapter(folder);
  return fmt::format("LoRA rank {} on {}", adapter.settings.rank,
                     counted(static_cast<std::int64_t>(adapter.modules.size()), "layer"));
}

std::string describe_adapter(const std::filesystem::path& folder) {
  if (const auto file = kohya_file(folder)) {
    return describe_kohya_adapter(*file);
  }
  const auto adapter = read_peft_adapter(folder);
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
