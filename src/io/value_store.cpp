#include "io/value_store.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <zlib.h>

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/durable_file.hpp"
#include "io/hdf5_image.hpp"

namespace lorascale::io {
namespace {

constexpr std::string_view kFormat = "lorascale values";
constexpr std::int64_t kVersion = 1;
constexpr std::size_t kDigits = 64;                       // of a key's digest
constexpr std::size_t kPartBytes = std::size_t{1} << 25;  // of values in a file
constexpr std::chrono::seconds kBetweenLooks{1};

std::uint32_t check_of(std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(
      crc32_z(0, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

std::span<const std::uint8_t> as_numbers(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

}  // namespace

struct ValueStore::Part {
  explicit Part(const std::filesystem::path& path)
      : file(path, "lorascale cache"), values(file.dataset("/values", {Hdf5Type::kUint8})) {}

  Hdf5File file;
  Hdf5Dataset values;
};

ValueStore::ValueStore(std::filesystem::path folder, std::string source)
    : folder_(std::move(folder)), source_(std::move(source)) {
  create_folders(folder_);
  look();
}

// What waits is not written here: an error could not be told.
ValueStore::~ValueStore() = default;

bool ValueStore::has(std::string_view key) const {
  const auto digest = sha256_hex(key);
  return places_.contains(digest) || waiting_.contains(digest);
}

std::optional<std::vector<std::byte>> ValueStore::read(std::string_view key) {
  const auto digest = sha256_hex(key);
  if (const auto found = waiting_.find(digest); found != waiting_.end()) {
    return found->second;
  }
  auto [place, end] = places_.equal_range(digest);
  while (place != end) {
    const auto& [part, first, bytes, check] = place->second;
    std::vector<std::byte> value(static_cast<std::size_t>(bytes));
    try {
      part->values.read(static_cast<std::uint64_t>(first), value.size(), value.data());
      if (check_of(value) == check) {
        return value;
      }
    } catch (const Error&) {
      // As good as not there.
    }
    spdlog::warn("{}: a value is damaged, and made again", part->file.path().string());
    place = places_.erase(place);
  }
  return std::nullopt;
}

void ValueStore::add(std::string_view key, std::span<const std::byte> value) {
  auto& kept = waiting_[sha256_hex(key)];
  waiting_bytes_ += value.size() - kept.size();
  kept.assign(value.begin(), value.end());
  if (waiting_bytes_ >= kPartBytes) {
    write();
  }
}

void ValueStore::write() {
  if (waiting_.empty()) {
    return;
  }
  std::string keys;
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> checks;
  std::vector<std::byte> values;
  values.reserve(waiting_bytes_);
  for (const auto& [digest, value] : waiting_) {
    keys += digest;
    values.insert(values.end(), value.begin(), value.end());
    offsets.push_back(std::ssize(values));
    checks.push_back(check_of(value));
  }
  Hdf5Image image;
  image.add_attribute("format", std::string(kFormat));
  image.add_attribute("version", kVersion);
  image.add_attribute("source", source_);
  image.add("/keys", as_numbers(std::as_bytes(std::span(keys))));
  image.add("/offsets", std::span<const std::int64_t>(offsets));
  image.add("/checks", std::span<const std::uint32_t>(checks));
  image.add("/values", as_numbers(values));
  // The same values have the same name, whoever writes them.
  const auto name = fmt::format("part-{}.h5", sha256_hex(source_ + keys).substr(0, 24));
  write_file_atomically(folder_ / name, image.bytes());
  waiting_.clear();
  waiting_bytes_ = 0;
  seen_.erase(folder_ / name);
  look();
}

void ValueStore::refresh() {
  if (std::chrono::steady_clock::now() - looked_ >= kBetweenLooks) {
    look();
  }
}

void ValueStore::look() {
  looked_ = std::chrono::steady_clock::now();
  std::error_code unreadable;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, unreadable)) {
    const auto name = entry.path().filename().string();
    if (!name.starts_with("part-") || !name.ends_with(".h5") ||
        !seen_.insert(entry.path()).second) {
      continue;
    }
    try {
      if (!open_part(entry.path())) {
        spdlog::debug("{} is of another source", entry.path().string());
      }
    } catch (const Error& error) {
      spdlog::warn("{}; what it held is made again", error.what());
    }
  }
}

bool ValueStore::open_part(const std::filesystem::path& file) {
  const auto damaged = [&] { throw_bad_input(file.string() + " is damaged"); };
  const auto part = std::make_shared<Part>(file);
  if (part->file.text_attribute("format") != kFormat ||
      part->file.integer_attribute("version") != kVersion ||
      part->file.text_attribute("source") != source_) {
    return false;
  }
  const auto keys = part->file.dataset("/keys", {Hdf5Type::kUint8});
  const auto offsets = part->file.dataset("/offsets", {Hdf5Type::kInt64});
  const auto checks = part->file.dataset("/checks", {Hdf5Type::kUint32});
  const auto count = checks.size();
  if (keys.size() / kDigits != count || keys.size() % kDigits != 0 || offsets.size() != count + 1) {
    damaged();
  }
  std::string digests(keys.size(), '\0');
  std::vector<std::int64_t> ends(offsets.size());
  std::vector<std::uint32_t> sums(checks.size());
  keys.read(0, keys.size(), digests.data());
  offsets.read(0, offsets.size(), ends.data());
  checks.read(0, checks.size(), sums.data());
  if (ends.front() != 0 || ends.back() != static_cast<std::int64_t>(part->values.size()) ||
      !std::ranges::is_sorted(ends)) {
    damaged();
  }
  for (std::size_t i = 0; i < count; ++i) {
    places_.emplace(digests.substr(i * kDigits, kDigits),
                    Place{part, ends[i], ends[i + 1] - ends[i], sums[i]});
  }
  return true;
}

}  // namespace lorascale::io
