#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/safetensors.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::io {
namespace {

constexpr std::uint64_t kLengthBytes = 8;

std::uint64_t little_endian(std::span<const std::byte, kLengthBytes> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  }
  return value;
}

// What people most often have instead of a safetensors file.
void reject_other_kinds(std::span<const std::byte, kLengthBytes> start, const std::string& where) {
  const std::string_view text(reinterpret_cast<const char*>(start.data()), start.size());
  if (text == "version ") {
    throw_bad_input(
        where + " is a git-lfs pointer, not the file itself: run `git lfs pull` in its repository");
  }
  if (text.starts_with("PK\x03\x04") || text.starts_with("\x80\x02")) {
    throw_bad_input(where +
                    " is a pickle file under another name: convert it to safetensors in Python");
  }
  if (text.starts_with("<!DOCTYP") || text.starts_with("<html")) {
    throw_bad_input(
        where +
        " is a web page: the download failed; repeat it, after logging in if the model needs it");
  }
}

std::uint64_t read_header_length(const OpenedFile& file, std::uint64_t limit,
                                 const std::filesystem::path& path) {
  const std::string where = path.string();
  if (file.bytes < kLengthBytes) {
    throw_bad_input(where + " has " + std::to_string(file.bytes) +
                    " bytes, too few for a safetensors file: copy or download it again");
  }
  std::array<std::byte, kLengthBytes> start{};
  read_exactly(file.descriptor, 0, start, path);
  const std::uint64_t length = little_endian(start);
  if (length > limit || length > file.bytes - kLengthBytes) {
    reject_other_kinds(start, where);
  }
  if (length > limit) {
    throw_bad_input(where + ": declares a header of " + std::to_string(length) +
                    " bytes, too large (the limit is " + std::to_string(limit) +
                    "): this is no safetensors file, or it is damaged; get a fresh copy");
  }
  if (length > file.bytes - kLengthBytes) {
    throw_bad_input(where + ": declares a header of " + std::to_string(length) +
                    " bytes, but only " + std::to_string(file.bytes - kLengthBytes) +
                    " follow: the file is cut short; copy or download it again");
  }
  return length;
}

}  // namespace

SafetensorsFile::SafetensorsFile(std::filesystem::path path, std::uint64_t max_header_bytes)
    : path_(std::move(path)), file_(open_for_reading(path_)) {
  const std::uint64_t limit = std::min(max_header_bytes, kMaxSafetensorsHeader);
  const std::uint64_t length = read_header_length(file_, limit, path_);
  data_start_ = kLengthBytes + length;
  std::string text(length, '\0');
  read_exactly(file_.descriptor, kLengthBytes, std::as_writable_bytes(std::span(text)), path_);
  header_sha256_ = sha256_hex(text);
  header_ = parse_safetensors_header(text, data_bytes(), path_.string());

  by_name_.resize(header_.tensors.size());
  std::iota(by_name_.begin(), by_name_.end(), 0U);
  std::sort(by_name_.begin(), by_name_.end(), [this](std::uint32_t a, std::uint32_t b) {
    return header_.tensors[a].name < header_.tensors[b].name;
  });
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                      [this](std::uint32_t index, std::string_view key) {
                                        return header_.tensors[index].name < key;
                                      });
  if (found == by_name_.end() || header_.tensors[*found].name != name) {
    return nullptr;
  }
  return &header_.tensors[*found];
}

const TensorInfo& SafetensorsFile::at(std::string_view name) const {
  const TensorInfo* found = find(name);
  if (found == nullptr) {
    throw_bad_input(path_.string() + " has no tensor " + in_quotes(name) +
                    ": check that it is the file of the right model");
  }
  return *found;
}

ByteRange SafetensorsFile::range_of(const TensorInfo& tensor,
                                    std::span<std::byte> destination) const {
  LS_ASSERT(destination.size() == tensor.bytes() && tensor.end <= data_bytes());
  return {&file_.descriptor, &path_, data_start_ + tensor.begin, destination};
}

void SafetensorsFile::read_part(const TensorInfo& tensor, std::uint64_t first,
                                std::span<std::byte> destination) const {
  LS_ASSERT(first + destination.size() <= tensor.bytes() && tensor.end <= data_bytes());
  read_exactly(file_.descriptor, data_start_ + tensor.begin + first, destination, path_);
}

void SafetensorsFile::read(const TensorInfo& tensor, std::span<std::byte> destination,
                           int threads) const {
  const ByteRange range = range_of(tensor, destination);
  read_parallel(std::span(&range, 1), threads);
}

}  // namespace lorascale::io
