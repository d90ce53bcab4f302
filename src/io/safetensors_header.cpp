#include "io/safetensors_header.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/error.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::io {
namespace {

using nlohmann::json;

constexpr const char* kDamaged =
    ": the file is damaged or was not written by a safetensors library; "
    "get a fresh copy";
constexpr const char* kMetadataKey = "__metadata__";
// The published schema bounds sizes and offsets to 48 bits; this also keeps them within int64.
constexpr std::uint64_t kMaxSize = (std::uint64_t{1} << 48) - 1;

// Reads the events of one header. There is no tree in between: memory is that of the result.
class HeaderHandler : public nlohmann::json_sax<json> {
 public:
  HeaderHandler(SafetensorsHeader& header, const std::string& where)
      : header_(header), where_(where) {}

  bool null() override { wrong_value("null"); }
  bool boolean(bool /*value*/) override { wrong_value("a truth value"); }
  bool number_integer(number_integer_t /*value*/) override { wrong_value("a negative number"); }
  bool number_float(number_float_t /*value*/, const string_t& /*raw*/) override {
    wrong_value("a number that is not a whole one of at most 64 bits");
  }
  bool binary(binary_t& /*value*/) override { wrong_value("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      add_size(value);
    } else if (place_ == Place::kOffsets) {
      add_offset(value);
    } else {
      wrong_value("a number");
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[name_] = std::move(value);
    } else if (place_ == Place::kTensor && field_ == kDtypeField) {
      const std::optional<Dtype> dtype = dtype_from_name(value);
      if (!dtype) {
        fail("has the unknown element type " + in_quotes(value));
      }
      tensor().dtype = *dtype;
    } else {
      wrong_value("a text");
    }
    return true;
  }

  bool start_object(std::size_t /*count*/) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop) {
      open_entry();
    } else {
      wrong_value("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    if (place_ == Place::kTop) {
      name_ = std::move(name);
      field_ = 0;
    } else if (place_ == Place::kMetadata) {
      if (header_.metadata.contains(name)) {
        fail("appears twice in " + std::string(kMetadataKey));
      }
      if (header_.metadata.size() == kMaxMetadataItems) {
        throw_bad_input(where_ + ": the header has more than " + std::to_string(kMaxMetadataItems) +
                        " metadata items" + kDamaged);
      }
      name_ = std::move(name);
    } else {
      open_field(name);
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor && seen_fields_ != (kDtypeField | kShapeField | kOffsetsField)) {
      fail("lacks one of dtype, shape, data_offsets");
    }
    place_ = Place::kTop;
    return true;
  }

  bool start_array(std::size_t /*count*/) override {
    if (place_ == Place::kTensor && field_ == kShapeField) {
      place_ = Place::kShape;
    } else if (place_ == Place::kTensor && field_ == kOffsetsField) {
      place_ = Place::kOffsets;
      offsets_seen_ = 0;
    } else {
      wrong_value("a list");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_seen_ != 2) {
      fail("has data_offsets of other than two numbers");
    }
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t /*offset*/, const std::string& /*last_token*/,
                   const json::exception& /*error*/) override {
    return false;  // reported by parse_json_events
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };
  static constexpr int kDtypeField = 1;
  static constexpr int kShapeField = 2;
  static constexpr int kOffsetsField = 4;

  TensorInfo& tensor() { return header_.tensors.back(); }

  [[noreturn]] void fail(const std::string& problem) const {
    throw_bad_input(where_ + ": header entry " + in_quotes(name_) + " " + problem + kDamaged);
  }

  [[noreturn]] void wrong_value(const std::string& found) const {
    if (place_ == Place::kStart) {
      throw_bad_input(where_ + ": the header is no JSON object" + kDamaged);
    }
    fail("holds " + found + " where it may not");
  }

  void open_entry() {
    if (name_ == kMetadataKey) {
      if (std::exchange(metadata_seen_, true)) {
        fail("appears twice");
      }
      place_ = Place::kMetadata;
      return;
    }
    if (name_.find('\0') != std::string::npos) {
      fail("has a NUL character in its name");
    }
    if (header_.tensors.size() == kMaxTensorsPerFile) {
      throw_bad_input(where_ + ": the header lists more than " +
                      std::to_string(kMaxTensorsPerFile) + " tensors" + kDamaged);
    }
    place_ = Place::kTensor;
    seen_fields_ = 0;
    header_.tensors.emplace_back().name = name_;
  }

  void open_field(const std::string& name) {
    field_ = name == "dtype"          ? kDtypeField
             : name == "shape"        ? kShapeField
             : name == "data_offsets" ? kOffsetsField
                                      : 0;
    if (field_ == 0) {
      fail("has the unknown field " + in_quotes(name));
    }
    if ((seen_fields_ & field_) != 0) {
      fail("has the field " + in_quotes(name) + " twice");
    }
    seen_fields_ |= field_;
  }

  void add_size(std::uint64_t value) {
    if (value > kMaxSize) {
      fail("has a size beyond 48 bits in its shape, which would overflow");
    }
    if (tensor().shape.size() == kMaxTensorRank) {
      fail("has more than " + std::to_string(kMaxTensorRank) + " dimensions");
    }
    tensor().shape.push_back(static_cast<std::int64_t>(value));
  }

  void add_offset(std::uint64_t value) {
    if (value > kMaxSize) {
      fail("has an offset beyond 48 bits");
    }
    if (offsets_seen_ == 0) {
      tensor().begin = value;
    } else if (offsets_seen_ == 1) {
      tensor().end = value;
    }
    ++offsets_seen_;
  }

  SafetensorsHeader& header_;
  const std::string& where_;
  Place place_ = Place::kStart;
  std::string name_;  // of the entry, or of the metadata item within
  int field_ = 0;
  int seen_fields_ = 0;
  int offsets_seen_ = 0;
  bool metadata_seen_ = false;
};

[[noreturn]] void fail_tensor(const std::string& where, const TensorInfo& tensor,
                              const std::string& problem) {
  throw_bad_input(where + ": tensor " + in_quotes(tensor.name) + " " + problem + kDamaged);
}

void check_sizes(const SafetensorsHeader& header, const std::string& where) {
  for (const TensorInfo& tensor : header.tensors) {
    if (tensor.begin > tensor.end) {
      fail_tensor(where, tensor, "begins after its end");
    }
    if (!element_count(tensor.shape)) {
      fail_tensor(where, tensor, "has a shape whose product overflows");
    }
    const std::optional<std::uint64_t> bytes = tensor_bytes(tensor.dtype, tensor.shape);
    if (!bytes) {
      fail_tensor(where, tensor, "would overflow or end within a byte");
    }
    if (*bytes != tensor.bytes()) {
      fail_tensor(where, tensor,
                  "needs " + std::to_string(*bytes) +
                      " bytes by dtype and shape, but its offsets give " +
                      std::to_string(tensor.bytes()));
    }
  }
}

void check_coverage(const SafetensorsHeader& header, std::uint64_t data_bytes,
                    const std::string& where) {
  std::uint64_t covered = 0;
  for (const TensorInfo& tensor : header.tensors) {
    if (tensor.begin != covered) {
      fail_tensor(
          where, tensor,
          (tensor.begin > covered ? "leaves a hole before it: " : "overlaps the one before it: ") +
              ("begins at " + std::to_string(tensor.begin)) + ", expected " +
              std::to_string(covered));
    }
    covered = tensor.end;
  }
  if (covered > data_bytes) {
    throw_bad_input(where + ": the file is cut short: its tensors need " + std::to_string(covered) +
                    " bytes, it holds " + std::to_string(data_bytes) +
                    "; copy or download it again");
  }
  if (covered < data_bytes) {
    throw_bad_input(where + ": " + std::to_string(data_bytes - covered) +
                    " bytes follow the last tensor" + kDamaged);
  }
}

void check_names(const SafetensorsHeader& header, const std::string& where) {
  std::vector<const std::string*> names;
  names.reserve(header.tensors.size());
  for (const TensorInfo& tensor : header.tensors) {
    names.push_back(&tensor.name);
  }
  const auto by_text = [](const std::string* a, const std::string* b) { return *a < *b; };
  std::sort(names.begin(), names.end(), by_text);
  const auto same = [](const std::string* a, const std::string* b) { return *a == *b; };
  const auto twice = std::adjacent_find(names.begin(), names.end(), same);
  if (twice != names.end()) {
    throw_bad_input(where + ": tensor " + in_quotes(**twice) + " appears twice" + kDamaged);
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                           const std::string& where) {
  const std::size_t last = text.find_last_not_of(" \t\r\n");
  text = text.substr(
      0, last == std::string_view::npos ? 0 : last + 1);  // spares the parser the padding
  const JsonLimits limits{.max_bytes = kMaxSafetensorsHeader,
                          .max_string_bytes = std::size_t{16} << 20,
                          .max_values = 14 * kMaxTensorsPerFile,
                          .max_depth = 3};
  SafetensorsHeader header;
  HeaderHandler handler(header, where);
  parse_json_events(text, where, limits, handler);
  check_sizes(header, where);
  check_names(header, where);  // before the offsets: a repeated entry overlaps itself
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) {
              return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
            });
  check_coverage(header, data_bytes, where);
  return header;
}

std::string compose_safetensors_header(const std::vector<TensorInfo>& tensors,
                                       const SafetensorsMetadata& metadata,
                                       const std::string& where) {
  std::string text = "{";
  const auto quote = [](const std::string& value) { return json(value).dump(); };
  const auto separate = [&text] {
    if (text.size() > 1) {
      text += ',';
    }
  };
  if (!metadata.empty()) {
    text += quote(kMetadataKey) + ':' + json(metadata).dump();
  }
  for (const TensorInfo& tensor : tensors) {
    separate();
    text += quote(tensor.name) + R"(:{"dtype":")" + std::string(dtype_name(tensor.dtype)) +
            R"(","shape":)" + json(tensor.shape).dump() + R"(,"data_offsets":[)" +
            std::to_string(tensor.begin) + ',' + std::to_string(tensor.end) + "]}";
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kMaxSafetensorsHeader) {
    throw Error(ExitCode::kCannotWrite,
                where + ": names and metadata need a header of " + std::to_string(text.size()) +
                    " bytes, the format allows " + std::to_string(kMaxSafetensorsHeader) +
                    ": shorten the metadata");
  }
  return text;
}

}  // namespace lorascale::io
