#include "adapters/formats/picture_lora.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <utility>

#include "adapters/formats/diffusers_lora.hpp"
#include "adapters/formats/ia3.hpp"
#include "adapters/formats/kohya.hpp"
#include "adapters/formats/low_rank.hpp"
#include "adapters/formats/peft_parts.hpp"
#include "adapters/formats/site_shape.hpp"
#include "base/error.hpp"
#include "base/units.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::adapters {
namespace {

namespace fs = std::filesystem;

// Of forms that have the model's own names. What is none goes by the reader of sd-scripts' form,
// which says what is wrong.
std::optional<PeftAdapter> read_by_parts(const fs::path& lora) {
  const auto form = form_of_picture_lora(lora);
  return form == PictureForm::kPeft        ? std::optional(read_peft_parts(lora))
         : form == PictureForm::kDiffusers ? std::optional(read_diffusers_lora(lora))
                                           : std::nullopt;
}

std::set<std::int64_t> ranks_of_modules(const PeftAdapter& adapter) {
  std::set<std::int64_t> ranks;
  for (const auto& [name, module] : adapter.modules) {
    ranks.insert(module.a.size(0));
  }
  return ranks;
}

std::string summary_of_parts(const PeftAdapter& adapter) {
  return fmt::format("LoRA rank {} on {}", fmt::join(ranks_of_modules(adapter), ", "),
                     counted(std::ssize(adapter.modules), "layer"));
}

}  // namespace

std::optional<fs::path> picture_lora(const fs::path& path) {
  if (auto file = kohya_file(path)) {
    return file;
  }
  if (std::error_code unknown; fs::is_regular_file(path / kDiffusersFile, unknown)) {
    return path / kDiffusersFile;
  }
  return has_peft_parts(path) ? std::optional(path) : std::nullopt;
}

std::optional<PictureForm> form_of_picture_lora(const fs::path& lora) {
  if (std::error_code unknown; fs::is_directory(lora, unknown)) {
    return PictureForm::kPeft;
  }
  return is_kohya_adapter(lora)    ? std::optional(PictureForm::kKohya)
         : is_diffusers_lora(lora) ? std::optional(PictureForm::kDiffusers)
                                   : std::nullopt;
}

bool is_picture_ia3(const fs::path& lora) {
  std::error_code unknown;
  return !fs::is_directory(lora, unknown) && is_kohya_ia3(io::SafetensorsFile(lora));
}

bool is_picture_dora(const fs::path& lora) {
  const auto adapter = read_by_parts(lora);
  return adapter ? adapter->settings.dora : is_kohya_dora(lora);
}

std::set<std::int64_t> ranks_of_picture_lora(const fs::path& lora) {
  const auto adapter = read_by_parts(lora);
  return adapter ? ranks_of_modules(*adapter) : ranks_of_kohya_adapter(lora);
}

std::string summarise_picture_lora(const fs::path& lora) {
  const auto adapter = read_by_parts(lora);
  return adapter ? summary_of_parts(*adapter) : summarise_kohya_adapter(lora);
}

std::string describe_picture_lora(const fs::path& lora) {
  const auto adapter = read_by_parts(lora);
  if (!adapter) {
    return describe_kohya_adapter(lora);
  }
  const bool of_peft = form_of_picture_lora(lora) == PictureForm::kPeft;
  auto text = fmt::format(
      "{}: {}{}\n",
      of_peft ? "LoRA in PEFT's folders, one for each part" : "LoRA file of diffusers' form",
      summary_of_parts(*adapter), adapter->settings.dora ? ", DoRA" : "");
  std::int64_t parameters = 0;
  for (const auto& [name, module] : adapter->modules) {
    parameters += module.a.numel() + module.b.numel() +
                  (module.magnitude.defined() ? module.magnitude.numel() : 0);
    text += fmt::format("  {:<72} rank {:<4} alpha {:<6g} |dW| {:.4g}\n", name, module.a.size(0),
                        module.alpha, norm_of_change(module));
  }
  return text + fmt::format("{} parameters\n", parameters);
}

PeftAdapter read_picture_lora(const fs::path& lora, const std::vector<nn::Site>& sites) {
  auto adapter = read_by_parts(lora);
  if (!adapter) {
    return read_kohya_adapter(lora, sites);
  }
  std::map<std::string, const nn::Site*> by_name;
  for (const auto& site : sites) {
    by_name.emplace(site.name, &site);
  }
  for (auto& [name, module] : adapter->modules) {
    const auto where = lora.string() + ": " + io::in_quotes(name);
    const auto site = by_name.find(name);
    if (site == by_name.end()) {
      throw_bad_input(where +
                      " is no layer of this model that takes an adapter; was it made for another "
                      "kind of model?");
    }
    module = fitted(std::move(module), *site->second, where);
  }
  return *std::move(adapter);
}

}  // namespace lorascale::adapters
