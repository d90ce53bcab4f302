#include "train/samples.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <new>
#include <string_view>
#include <variant>

#include "coordinator/record/replay.hpp"
#include "io/durable_file.hpp"
#include "train/averaged_weights.hpp"
#include "train/tensor_memory.hpp"
#include "train/vote.hpp"

namespace lorascale::train {

void Samples::write(const workloads::Preview::Item& item, const std::string& file) {
  const auto folder = run_.folder / "samples";
  std::filesystem::create_directories(folder);
  const auto step = run_.coordinator->steps_done();
  if (!item.picture.png.empty()) {
    run_.record.write_sample(step, item.name, item.picture);
    io::write_file_atomically(folder / (file + ".png"), std::string_view(item.picture.png));
    return;
  }
  run_.record.write_samples(step, "```\n" + item.text + "```");
  io::write_file_atomically(folder / (file + ".txt"), std::string_view(item.text));
}

void Samples::tell_out_of_memory() {
  release_cached_memory(run_.world.place);
  run_.tell_aside_out_of_memory({0, coordinator::AsideMemoryFacts::Task::kSampling, 1, 0, 0});
}

void Samples::show(const std::string& when) {
  const auto& session = run_.session;
  auto* preview = session.workload->preview();
  if (preview == nullptr || session.config.sample.every.value == 0) {
    return;
  }
  const AveragedWeights averaged(session.optimizer->average(), session.parameters());
  bool out_of_memory = false;
  root_alone(
      run_.world.host,
      [&] {
        run_.faults.reach(Phase::kSample);
        for (const auto& item : preview->make()) {
          write(item, item.name.empty() ? when : when + "-" + item.name);
        }
      },
      &out_of_memory);
  if (out_of_memory) {
    tell_out_of_memory();
  }
}

void Samples::show_last() {
  const auto& session = run_.session;
  auto* preview = session.workload->preview();
  if (preview == nullptr || session.config.sample.every.value == 0) {
    return;
  }
  const AveragedWeights averaged(session.optimizer->average(), session.parameters());
  coordinator::PreviewFacts facts{run_.coordinator->steps_done()};
  bool out_of_memory = false;
  root_alone(
      run_.world.host,
      [&] {
        bool no_memory = false;
        const auto failure = attempt(
            [&] {
              run_.faults.reach(Phase::kSample);
              facts.measures =
                  preview->make_last([&](const auto& item) { write(item, item.name); });
            },
            &no_memory);
        if (failure) {
          run_.record.say(spdlog::level::warn,
                          fmt::format("the run's results are written, and what its samples show "
                                      "last is not all there: {}",
                                      failure->what()));
        }
        if (no_memory) {
          throw std::bad_alloc();
        }
      },
      &out_of_memory);
  if (out_of_memory) {
    tell_out_of_memory();
  }
  // All ranks tell their coordinators the same.
  auto line = coordinator::to_json_line({facts, 0});
  run_.world.host.broadcast_from_root(line);
  const auto event = coordinator::event_from_json_line(line).event;
  if (!std::get<coordinator::PreviewFacts>(event).measures.empty()) {
    run_.tell(event);
    run_.write_decisions();
  }
}

}  // namespace lorascale::train
