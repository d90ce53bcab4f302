#include "train/data_preparation.hpp"

#include <array>
#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "io/durable_file.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"
#include "train/signals.hpp"
#include "train/vote.hpp"
#include "workloads/workload.hpp"

namespace lorascale::train {
namespace {

constexpr std::string_view kDataRecord = "data.json";

// How often the ranks hear of each other. Far below any deadline.
constexpr std::chrono::seconds kTick{1};

// Rank 0 does `work` and, about once a second, tells the others that it goes on; so nobody's
// deadline passes, and a request to stop that reached any rank reaches rank 0.
class LongWork {
 public:
  explicit LongWork(comm::Communicator& host) : host_(host) {}

  void run(const std::function<void(const KeepGoing&)>& work) {
    std::optional<Error> error;
    if (host_.rank() == 0) {
      error = attempt([&] { work([this] { return keep_going(); }); });
      tick(false);
    } else {
      while (tick(true)) {
      }
    }
    vote(host_, {}, error);
  }

 private:
  bool keep_going() {
    beat("preparing the data");
    if (const auto now = Clock::now(); now - last_ >= kTick) {
      last_ = now;
      tick(true);
    }
    return !stop_ && !stop_was_requested();
  }
  // Whether rank 0 goes on.
  bool tick(bool working) {
    std::array<std::int64_t, 2> facts = {host_.rank() == 0 && !working ? 1 : 0,
                                         stop_was_requested() ? 1 : 0};
    host_.all_reduce(std::span(facts));
    stop_ = facts[1] > 0;
    return facts[0] == 0;
  }

  using Clock = std::chrono::steady_clock;
  comm::Communicator& host_;
  Clock::time_point last_ = Clock::now();
  bool stop_ = false;
};

// Names made on another machine a moment ago may take some seconds to show on a network file
// system.
void require_visible(const std::filesystem::path& path) {
  constexpr int kTries = 50;
  for (int i = 0; i < kTries; ++i) {
    std::error_code ignored;
    if (std::filesystem::exists(path, ignored)) {
      return;
    }
    beat("waiting for the prepared data");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  throw_bad_input(path.string() +
                  ", which rank 0 prepared, is not to be seen from here; set data.prepare.cache to "
                  "a folder that all machines see");
}

}  // namespace

void write_data_record(const std::filesystem::path& run, const prepare::DataFiles& files) {
  const auto path = [](const std::filesystem::path& file) {
    return io::json_text(std::filesystem::absolute(file).lexically_normal().string());
  };
  nlohmann::ordered_json record = {{"train", path(files.train)}, {"validation", nullptr}};
  if (files.validation) {
    record["validation"] = path(*files.validation);
  }
  record["prepared"] = files.records;
  io::write_file_atomically(run / kDataRecord, std::string_view(record.dump(2) + "\n"));
}

nlohmann::ordered_json read_data_record(const std::filesystem::path& run) {
  std::error_code ignored;
  if (!std::filesystem::exists(run / kDataRecord, ignored)) {
    return nullptr;
  }
  try {
    return io::read_ordered_json_file(run / kDataRecord);
  } catch (const Error&) {
    return nullptr;
  }
}

std::optional<std::filesystem::path> trained_on(const std::filesystem::path& run) {
  const auto record = read_data_record(run);
  std::error_code ignored;
  if (!record.is_object() || !record.contains("train") || !record["train"].is_string()) {
    return std::nullopt;
  }
  const std::filesystem::path file = record["train"].get<std::string>();
  return std::filesystem::is_regular_file(file, ignored) ? std::optional(file) : std::nullopt;
}

prepare::DataFiles prepare_data(World& world, const config::RunConfig& config) {
  together(world.host, [&] { workloads::require_data_files(config); });
  prepare::DataFiles files;
  LongWork(world.host).run([&](const KeepGoing& keep_going) {
    files = prepare::prepare(config, keep_going);
  });
  std::string train = files.train.string();
  std::string validation = files.validation ? files.validation->string() : "";
  std::string records = files.records.dump();
  for (std::string* text : {&train, &validation, &records}) {
    world.host.broadcast_from_root(*text);
  }
  files.train = train;
  files.validation =
      validation.empty() ? std::nullopt : std::optional<std::filesystem::path>(validation);
  files.records = nlohmann::ordered_json::parse(records);
  together(world.host, [&] {
    if (files.records.contains("data.train")) {
      require_visible(files.train);
    }
    if (files.validation && !files.records.empty()) {
      require_visible(*files.validation);
    }
  });
  return files;
}

}  // namespace lorascale::train
