#include "train/samples.hpp"

#include <filesystem>
#include <string_view>

#include "io/durable_file.hpp"
#include "train/averaged_weights.hpp"
#include "train/tensor_memory.hpp"
#include "train/vote.hpp"

namespace lorascale::train {

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
        const auto folder = run_.folder / "samples";
        std::filesystem::create_directories(folder);
        for (const auto& [name, text, picture] : preview->make()) {
          const auto file = name.empty() ? when : when + "-" + name;
          if (!picture.png.empty()) {
            run_.record.write_sample(run_.coordinator->steps_done(), name, picture);
            io::write_file_atomically(folder / (file + ".png"), std::string_view(picture.png));
            continue;
          }
          run_.record.write_samples(run_.coordinator->steps_done(), "```\n" + text + "```");
          io::write_file_atomically(folder / (file + ".txt"), std::string_view(text));
        }
      },
      &out_of_memory);
  if (out_of_memory) {
    release_cached_memory(run_.world.place);
    run_.tell_aside_out_of_memory({0, coordinator::AsideMemoryFacts::Task::kSampling, 1, 0, 0});
  }
}

}  // namespace lorascale::train
