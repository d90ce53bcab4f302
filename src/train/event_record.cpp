#include "train/event_record.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstdint>
#include <optional>

#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "io/file_descriptor.hpp"

namespace lorascale::train {
namespace {

constexpr std::uint64_t kMaxBytes = std::uint64_t{4} << 30;

// The first `count` lines of a text with the digest of the last; nothing where there are fewer, or
// the last of them is damaged.
struct Prefix {
  std::string text;
  std::uint64_t chain = 0;
};
std::optional<Prefix> first_lines(const std::string& text, std::int64_t count) {
  std::size_t begin = 0, end = 0;
  for (std::int64_t line = 0; line < count; ++line) {
    begin = end;
    if (begin == text.size()) {
      return std::nullopt;
    }
    const auto newline = text.find('\n', begin);
    end = newline == std::string::npos ? text.size() : newline + 1;
  }
  try {
    const auto line = text.substr(begin, end - begin);
    const auto last = coordinator::event_from_json_line(line);
    return Prefix{text.substr(0, end) + (line.ends_with('\n') ? "" : "\n"), last.chain};
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

void EventRecord::write(const coordinator::Event& event) {
  const bool first_loss = log_.lost_lines() == 0;
  if (!log_.write(coordinator::to_json_line(recorder_.record(event))) && first_loss) {
    spdlog::warn("{}: a line could not be written ({}); training goes on", log_.path().string(),
                 io::describe_errno(errno));
  }
}

void EventRecord::require_complete() const {
  if (log_.lost_lines() > 0) {
    throw Error(ExitCode::kCannotWrite,
                fmt::format("{} misses {} line(s) that could not be written, so the run cannot be "
                            "replayed; everything else is complete. Free space in the run folder",
                            log_.path().string(), log_.lost_lines()));
  }
}

std::unique_ptr<EventRecord> open_event_record(const std::filesystem::path& path,
                                               const coordinator::Coordinator& coordinator,
                                               bool resumed) {
  if (!resumed) {
    io::write_file_atomically(path, std::string_view());
    return std::make_unique<EventRecord>(path, coordinator::Recorder(coordinator.recipe()));
  }
  const std::int64_t before = coordinator.events() - 1;  // the resume is the last of them
  std::optional<Prefix> kept;
  if (before >= coordinator.steps_done() && before > 0 && std::filesystem::exists(path)) {
    kept = first_lines(io::read_file(path, kMaxBytes), before);
  }
  if (!kept) {
    std::string aside;
    if (std::filesystem::exists(path)) {
      aside = "; what it holds is in " + path.string() + ".damaged";
      std::filesystem::rename(path, path.string() + ".damaged");
    }
    spdlog::warn(
        "from here on the facts of this run are not recorded, and it cannot be replayed: {} does "
        "not hold its earlier part{}",
        path.string(), aside);
    return nullptr;
  }
  io::write_file_atomically(path, std::string_view(kept->text));
  auto record = std::make_unique<EventRecord>(path, coordinator::Recorder(kept->chain));
  record->write(coordinator::resume_facts(coordinator));
  return record;
}

}  // namespace lorascale::train
