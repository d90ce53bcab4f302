#include "workloads/diffusion/dataset_facts.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lorascale::workloads::diffusion {
namespace {

using OrderedJson = nlohmann::ordered_json;
using Tag = std::pair<std::string, std::int64_t>;

constexpr std::size_t kMostTags = 1000;   // the most used ones
constexpr std::size_t kLongestTag = 256;  // bytes; longer ones are prose, which nobody clicks on

// Without white space around it and in small letters, as sd-scripts counts it (there of all
// alphabets).
std::string tag_of(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n\v\f";
  const auto first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) {
    return {};
  }
  std::string tag(text.substr(first, text.find_last_not_of(kBlanks) - first + 1));
  std::ranges::transform(tag, tag.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return tag;
}

OrderedJson tag_frequency(const data::CaptionedFile& file) {
  std::unordered_map<std::string, std::int64_t> counts;
  for (std::int64_t i = 0; i < file.images(); ++i) {
    auto left = file.regularisation(i) ? std::string_view() : file.caption(i);
    while (!left.empty()) {
      const auto comma = std::min(left.find(','), left.size());
      auto tag = tag_of(left.substr(0, comma));
      if (!tag.empty() && tag.size() <= kLongestTag) {
        ++counts[std::move(tag)];
      }
      left.remove_prefix(std::min(comma + 1, left.size()));
    }
  }
  std::vector<Tag> tags(counts.begin(), counts.end());
  std::ranges::sort(tags, [](const Tag& a, const Tag& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  tags.resize(std::min(tags.size(), kMostTags));
  OrderedJson frequency = OrderedJson::object();
  for (const auto& [tag, count] : tags) {
    frequency[tag] = count;
  }
  return frequency;
}

// With repeats, as they are here.
OrderedJson buckets_of(const data::CaptionedFile& file) {
  std::vector<std::int64_t> samples(file.buckets().size(), 0);
  for (std::int64_t i = 0; i < file.images(); ++i) {
    samples[static_cast<std::size_t>(file.bucket(i))] += file.repeats(i);
  }
  OrderedJson buckets = OrderedJson::object();
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto& bucket = file.buckets()[i];
    buckets[std::to_string(i)] = {{"resolution", {bucket.width, bucket.height}},
                                  {"count", samples[i]}};
  }
  return buckets;
}

// {name: value} as other programs read it: ASCII, whatever a caption holds.
std::string json_under(const std::string& name, const OrderedJson& value) {
  OrderedJson object = OrderedJson::object();
  object[name] = value;
  return object.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
}

}  // namespace

std::map<std::string, std::string> dataset_facts(const data::PictureDataset& pictures) {
  const auto& file = pictures.file();
  std::int64_t learnt = 0, samples = 0, prior_samples = 0;
  for (std::int64_t i = 0; i < file.images(); ++i) {
    learnt += file.regularisation(i) ? 0 : 1;
    (file.regularisation(i) ? prior_samples : samples) += file.repeats(i);
  }
  const auto name = std::filesystem::path(pictures.path()).stem().string();
  OrderedJson folder = OrderedJson::object();
  folder["img_count"] = learnt;
  if (learnt > 0 && samples % learnt == 0) {
    folder["n_repeats"] = samples / learnt;
  }
  std::map<std::string, std::string> facts = {
      {"ss_num_train_images", std::to_string(samples)},
      {"ss_num_reg_images", std::to_string(prior_samples)},
      {"ss_dataset_dirs", json_under(name, folder)},
      {"ss_bucket_info", json_under("buckets", buckets_of(file))},
  };
  if (const auto tags = tag_frequency(file); !tags.empty()) {
    facts.emplace("ss_tag_frequency", json_under(name, tags));
  }
  return facts;
}

}  // namespace lorascale::workloads::diffusion
