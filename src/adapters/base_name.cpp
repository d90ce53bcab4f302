#include "adapters/base_name.hpp"

#include <algorithm>
#include <string_view>

#include "io/model_reader.hpp"
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

fs::path absolute_folder(const fs::path& model) {
  std::error_code ignored;
  const fs::path folder = fs::absolute(model, ignored).lexically_normal();
  return folder.has_filename() ? folder : folder.parent_path();  // a slash at the end
}

// Of a folder in a hub's cache, models--OWNER--NAME/snapshots/REVISION. Models of no owner have a
// NAME alone.
std::optional<BaseModel> cached_model(const fs::path& folder) {
  constexpr std::string_view kMark = "models--";
  const std::string name = folder.parent_path().parent_path().filename().string();
  if (folder.parent_path().filename() != "snapshots" || !name.starts_with(kMark)) {
    return std::nullopt;
  }
  const std::string id = name.substr(kMark.size());
  const auto between = id.find("--");
  const std::string owned =
      between == std::string::npos ? id : id.substr(0, between) + "/" + id.substr(between + 2);
  return BaseModel{owned, folder.filename().string()};
}

}  // namespace

std::string model_name(const fs::path& model) {
  const fs::path folder = absolute_folder(model);
  const auto cached = cached_model(folder);
  const std::string name = cached ? cached->name : folder.filename().string();
  return lower_case(name.substr(name.rfind('/') + 1));
}

BaseModel base_model_of(const fs::path& model) {
  const fs::path folder = absolute_folder(io::model_folder(model));
  if (const auto cached = cached_model(folder)) {
    return *cached;
  }
  std::error_code failure;
  const fs::path target = fs::canonical(folder, failure);
  const auto cached = failure ? std::nullopt : cached_model(target);
  return cached ? *cached : BaseModel{folder.string(), ""};
}

std::optional<std::string> warning_of_other_base(const PeftAdapter& adapter,
                                                 const fs::path& base_path) {
  const fs::path base = io::model_folder(base_path);
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
