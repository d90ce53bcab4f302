#include "adapters/base_name.hpp"

#include <algorithm>

#include "io/untrusted_text.hpp"

namespace lorascale::adapters {
namespace {

namespace fs = std::filesystem;

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

}  // namespace

std::string model_name(const fs::path& model) {
  std::error_code ignored;
  fs::path folder = fs::absolute(model, ignored).lexically_normal();
  if (!folder.has_filename()) {
    folder = folder.parent_path();  // a slash at the end
  }
  const std::string cached = folder.parent_path().parent_path().filename().string();
  if (folder.parent_path().filename() == "snapshots" && cached.starts_with("models--")) {
    return lower_case(cached.substr(cached.rfind("--") + 2));
  }
  return lower_case(folder.filename().string());
}

std::optional<std::string> warning_of_other_base(const PeftAdapter& adapter, const fs::path& base) {
  if (adapter.base_model.empty()) {
    return std::nullopt;
  }
  const auto resolved = [](const fs::path& path) {
    std::error_code failure;
    const auto target = fs::canonical(path, failure);
    return failure ? path : target;
  };
  const fs::path named = adapter.base_model;
  for (const fs::path& one : {named, resolved(named)}) {
    for (const fs::path& other : {base, resolved(base)}) {
      if (one == other || model_name(one) == model_name(other)) {
        return std::nullopt;
      }
    }
  }
  return "the adapter was made for the base model " + io::in_quotes(adapter.base_model) +
         ", not for " + io::in_quotes(base.string()) +
         "; where these are not the same weights, the result is wrong";
}

}  // namespace lorascale::adapters
