// A TensorBoard event file that grows as training goes on. Values are buffered; flush() hands them
// to the system, so call it once per step that logged anything. A write error never ends training:
// it is reported once, the values concerned are lost, and the file stays readable up to the last
// whole record. Not thread-safe: one writer, one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "io/file_descriptor.hpp"
#include "io/tensorboard_format.hpp"

namespace lorascale::io {

class TensorboardWriter {
 public:
  using Clock = std::function<double()>;                   // seconds since 1970
  using Report = std::function<void(const std::string&)>;  // takes the one message of a failure

  static double system_clock();
  static void warn(const std::string& message);

  // Creates `folder` where needed and in it events.out.tfevents.<seconds>.<host>.<pid>.<n>.
  explicit TensorboardWriter(const std::filesystem::path& folder, Clock clock = system_clock,
                             Report report = warn);
  ~TensorboardWriter();  // flushes
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;

  void add_scalar(std::string_view tag, std::int64_t step, double value);
  void add_text(std::string_view tag, std::int64_t step, std::string_view markdown);  // UTF-8
  // Nothing is written where no value is finite.
  void add_histogram(std::string_view tag, std::int64_t step, std::span<const float> values);
  // `channels` is 3 (RGB) or 4 (RGBA); `png` is a complete PNG file of that size in pixels.
  void add_image(std::string_view tag, std::int64_t step, int height, int width, int channels,
                 std::span<const std::byte> png);
  void flush();

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  void open(const std::filesystem::path& folder);
  void add(std::int64_t step, std::string_view value);
  void report_once(const std::string& problem);

  Clock clock_;
  Report report_;
  std::filesystem::path path_;
  FileDescriptor file_;
  std::string buffer_;
  std::uint64_t written_ = 0;  // bytes of whole records in the file
  bool reported_ = false;
};

}  // namespace lorascale::io
