// The bytes of TensorBoard event files: masked CRC-32C, records, and the few protobuf messages that
// scalars, texts, histograms and images need. Pure functions. Sources: TensorBoard's event,
// summary, histogram and tensor message definitions and its record writer.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lorascale::io {

// CRC-32C (Castagnoli): reflected polynomial 0x82F63B78, initial value and final xor 0xFFFFFFFF.
std::uint32_t crc32c(std::string_view data);
// The form that records store.
std::uint32_t masked_crc32c(std::string_view data);

// length u64 | masked CRC of the length | payload | masked CRC of the payload, all little-endian.
std::string encode_record(std::string_view payload);

// Bucket i counts the values in (limits[i-1], limits[i]]; the first also takes min.
struct Histogram {
  double min = 0.0;
  double max = 0.0;
  double count = 0.0;
  double sum = 0.0;
  double sum_squares = 0.0;
  std::vector<double> limits;  // ascending, as many as counts
  std::vector<double> counts;
};

// Equal-width buckets between the least and the greatest finite value; non-finite ones are left
// out, and count is 0 where none remains.
Histogram make_histogram(std::span<const float> values, int buckets = 64);

// One tagged value of a summary, as protobuf.
std::string encode_scalar(std::string_view tag, float value);
std::string encode_text(std::string_view tag, std::string_view markdown);
std::string encode_histogram(std::string_view tag, const Histogram& histogram);
std::string encode_png(std::string_view tag, int height, int width, int channels,
                       std::string_view png);

// Events. wall_time is in seconds since 1970.
std::string encode_version_event(double wall_time);
std::string encode_summary_event(double wall_time, std::int64_t step, std::string_view value);

}  // namespace lorascale::io
