#include "io/tensorboard_writer.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "io/durable_file.hpp"

namespace lorascale::io {
namespace {

// More than this is handed to the system without waiting for flush(): images can be large.
constexpr std::size_t kMaxBuffered = std::size_t{1} << 20;

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') {
    return "localhost";
  }
  return name.data();
}

std::string event_file_name(double wall_time) {
  static std::atomic<int> counter{
      0};  // several writers of one process may start in the same second
  return "events.out.tfevents." + std::to_string(static_cast<std::int64_t>(std::floor(wall_time))) +
         "." + host_name() + "." + std::to_string(::getpid()) + "." +
         std::to_string(counter.fetch_add(1));
}

}  // namespace

double TensorboardWriter::system_clock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void TensorboardWriter::warn(const std::string& message) {
  spdlog::warn("{}", message);
}

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder, Clock clock,
                                     Report report)
    : clock_(std::move(clock)), report_(std::move(report)) {
  const double now = clock_();
  path_ = folder / event_file_name(now);
  open(folder);
  buffer_ = encode_record(encode_version_event(now));
  flush();
}

void TensorboardWriter::open(const std::filesystem::path& folder) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  try {
    if (failure) {
      throw_cannot_write(folder, failure.value());
    }
    file_ = create_file(path_);
  } catch (const Error& error) {
    report_once(error.what());
  }
}

TensorboardWriter::~TensorboardWriter() {
  try {
    flush();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "warning: %s\n", error.what());
  }
}

void TensorboardWriter::add_scalar(std::string_view tag, std::int64_t step, double value) {
  add(step, encode_scalar(tag, static_cast<float>(value)));
}

void TensorboardWriter::add_text(std::string_view tag, std::int64_t step,
                                 std::string_view markdown) {
  add(step, encode_text(tag, markdown));
}

void TensorboardWriter::add_histogram(std::string_view tag, std::int64_t step,
                                      std::span<const float> values) {
  const Histogram histogram = make_histogram(values);
  if (histogram.count > 0.0) {
    add(step, encode_histogram(tag, histogram));
  }
}

void TensorboardWriter::add_image(std::string_view tag, std::int64_t step, int height, int width,
                                  int channels, std::span<const std::byte> png) {
  LS_ASSERT(height > 0 && width > 0 && (channels == 3 || channels == 4));
  const std::string_view bytes(reinterpret_cast<const char*>(png.data()), png.size());
  add(step, encode_png(tag, height, width, channels, bytes));
}

void TensorboardWriter::add(std::int64_t step, std::string_view value) {
  if (!file_.is_open()) {
    return;
  }
  buffer_ += encode_record(encode_summary_event(clock_(), step, value));
  if (buffer_.size() > kMaxBuffered) {
    flush();
  }
}

void TensorboardWriter::flush() {
  if (!file_.is_open() || buffer_.empty()) {
    buffer_.clear();
    return;
  }
  try {
    write_all(file_, std::as_bytes(std::span(buffer_)), path_);
    written_ += buffer_.size();
  } catch (const Error& error) {
    report_once(error.what());
    // A torn record would hide all that follow it, so it is cut off, and later values get their
    // chance.
    const auto end = static_cast<off_t>(written_);
    if (::ftruncate(file_.get(), end) != 0 || ::lseek(file_.get(), end, SEEK_SET) != end) {
      file_.close();
    }
  }
  buffer_.clear();
}

void TensorboardWriter::report_once(const std::string& problem) {
  if (!std::exchange(reported_, true)) {
    report_("TensorBoard values are being lost, training goes on: " + problem);
  }
}

}  // namespace lorascale::io
