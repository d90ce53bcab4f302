#include "io/tensorboard_format.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/error.hpp"

namespace lorascale::io {
namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) {
      value = value >> 1 ^ ((value & 1) != 0 ? 0x82F63B78U : 0U);
    }
    table[i] = value;
  }
  return table;
}

constexpr std::array<std::uint32_t, 256> kCrcTable = make_crc_table();

void append_little_endian(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) {
    out += static_cast<char>(value >> (8 * i) & 0xFF);
  }
}

// Builds one protobuf message. Wire types: 0 varint, 1 fixed 64 bits, 2 length and bytes, 5 fixed
// 32 bits.
class Message {
 public:
  Message& integer(int field, std::int64_t value) {
    key(field, 0);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  Message& real(int field, double value) {
    key(field, 1);
    append_little_endian(bytes_, std::bit_cast<std::uint64_t>(value), 8);
    return *this;
  }
  Message& real32(int field, float value) {
    key(field, 5);
    append_little_endian(bytes_, std::bit_cast<std::uint32_t>(value), 4);
    return *this;
  }
  Message& bytes(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& packed(int field, const std::vector<double>& values) {
    std::string packed;
    for (const double value : values) {
      append_little_endian(packed, std::bit_cast<std::uint64_t>(value), 8);
    }
    return bytes(field, packed);
  }
  std::string take() { return std::move(bytes_); }

 private:
  void key(int field, int wire_type) {
    varint(static_cast<std::uint64_t>(field) << 3 | static_cast<unsigned>(wire_type));
  }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
      bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    }
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

void add_moments(Histogram& histogram, double value) {
  histogram.min = histogram.count == 0.0 ? value : std::min(histogram.min, value);
  histogram.max = histogram.count == 0.0 ? value : std::max(histogram.max, value);
  histogram.count += 1.0;
  histogram.sum += value;
  histogram.sum_squares += value * value;
}

}  // namespace

std::uint32_t crc32c(std::string_view data) {
  std::uint32_t state = 0xFFFFFFFFU;
  for (const char c : data) {
    state = state >> 8 ^ kCrcTable[(state ^ static_cast<unsigned char>(c)) & 0xFF];
  }
  return state ^ 0xFFFFFFFFU;
}

std::uint32_t masked_crc32c(std::string_view data) {
  return std::rotr(crc32c(data), 15) + 0xA282EAD8U;
}

std::string encode_record(std::string_view payload) {
  std::string record;
  record.reserve(payload.size() + 16);
  append_little_endian(record, payload.size(), 8);
  append_little_endian(record, masked_crc32c(record), 4);
  record += payload;
  append_little_endian(record, masked_crc32c(payload), 4);
  return record;
}

Histogram make_histogram(std::span<const float> values, int buckets) {
  LS_ASSERT(buckets >= 1);
  Histogram histogram;
  for (const float value : values) {
    if (std::isfinite(value)) {
      add_moments(histogram, static_cast<double>(value));
    }
  }
  if (histogram.count == 0.0) {
    return histogram;
  }
  const std::size_t size = histogram.min == histogram.max ? 1 : static_cast<std::size_t>(buckets);
  const double width = (histogram.max - histogram.min) / static_cast<double>(size);
  for (std::size_t i = 1; i < size; ++i) {
    histogram.limits.push_back(histogram.min + width * static_cast<double>(i));
  }
  histogram.limits.push_back(histogram.max);
  histogram.counts.assign(size, 0.0);
  for (const float value : values) {
    if (std::isfinite(value)) {
      const auto limit = std::lower_bound(histogram.limits.begin(), histogram.limits.end(),
                                          static_cast<double>(value));
      histogram.counts[static_cast<std::size_t>(limit - histogram.limits.begin())] += 1.0;
    }
  }
  return histogram;
}

std::string encode_scalar(std::string_view tag, float value) {
  return Message().bytes(1, tag).real32(2, value).take();
}

std::string encode_text(std::string_view tag, std::string_view markdown) {
  constexpr int kStringType = 7;
  const std::string plugin = Message().bytes(1, "text").take();
  const std::string metadata = Message().bytes(1, plugin).take();
  const std::string dimension = Message().integer(1, 1).take();
  const std::string shape = Message().bytes(2, dimension).take();
  const std::string tensor =
      Message().integer(1, kStringType).bytes(2, shape).bytes(8, markdown).take();
  return Message()
      .bytes(1, std::string(tag) + "/text_summary")
      .bytes(8, tensor)
      .bytes(9, metadata)
      .take();
}

std::string encode_histogram(std::string_view tag, const Histogram& histogram) {
  LS_ASSERT(histogram.limits.size() == histogram.counts.size());
  const std::string message = Message()
                                  .real(1, histogram.min)
                                  .real(2, histogram.max)
                                  .real(3, histogram.count)
                                  .real(4, histogram.sum)
                                  .real(5, histogram.sum_squares)
                                  .packed(6, histogram.limits)
                                  .packed(7, histogram.counts)
                                  .take();
  return Message().bytes(1, tag).bytes(5, message).take();
}

std::string encode_png(std::string_view tag, int height, int width, int channels,
                       std::string_view png) {
  const std::string image =
      Message().integer(1, height).integer(2, width).integer(3, channels).bytes(4, png).take();
  return Message().bytes(1, tag).bytes(4, image).take();
}

std::string encode_version_event(double wall_time) {
  return Message().real(1, wall_time).bytes(3, "brain.Event:2").take();
}

std::string encode_summary_event(double wall_time, std::int64_t step, std::string_view value) {
  const std::string summary = Message().bytes(1, value).take();
  return Message().real(1, wall_time).integer(2, step).bytes(5, summary).take();
}

}  // namespace lorascale::io
