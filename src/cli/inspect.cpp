#include <fmt/format.h>

#include <iostream>

#include "adapters/adapter.hpp"
#include "cli/common.hpp"
#include "cli/inspect_run.hpp"
#include "cli/run_records.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/model_reader.hpp"
#include "workloads/tools.hpp"

namespace lorascale::cli {
namespace {

namespace fs = std::filesystem;

void inspect_checkpoint(const fs::path& folder) {
  const io::Checkpoint checkpoint(folder);
  std::cout << fmt::format(
      "checkpoint of step {}, written by start {} of its run; every file matches its SHA-256\n",
      checkpoint.step(), checkpoint.generation());
  for (const auto& file : checkpoint.files()) {
    std::cout << fmt::format("  {:<24} {:>12} bytes\n", file.name, file.bytes);
  }
  std::cout << checkpoint.fields() << '\n';
}

void inspect_model(const fs::path& path) {
  // A model in parts, as diffusers has it.
  if (fs::exists(path / "model_index.json")) {
    for (const auto* part : {"unet", "text_encoder", "text_encoder_2", "vae"}) {
      if (fs::exists(path / part)) {
        std::cout << part << ": ";
        inspect_model(path / part);
      }
    }
    return;
  }
  const io::ModelReader reader(path);
  std::cout << fmt::format("{} tensors, {} bytes in {} file(s)\n", reader.tensor_count(),
                           reader.total_bytes(), reader.files().size());
  for (const auto& key : reader.keys()) {
    const auto& info = reader.at(key);
    std::cout << fmt::format("  {:<64} {:<5} [{}]\n", key, io::dtype_name(info.dtype),
                             fmt::join(info.shape, ", "));
  }
}

// Of the files that are not explained, most are one of a folder that is.
void refuse_other_files(const fs::path& path) {
  const std::string name = path.filename().string();
  const bool known =
      path.extension() == ".safetensors" || name.ends_with(".safetensors.index.json") ||
      path.extension() == ".h5" || path.extension() == ".hdf5" ||
      (path.extension() == ".jsonl" && name != "metrics.jsonl" && name != "events.jsonl");
  if (fs::is_regular_file(path) && !known) {
    throw_bad_input(path.string() +
                    " is no file that inspect explains (decisions.jsonl, .h5, .safetensors); of "
                    "what is in a run, a model or an adapter, give the folder");
  }
}

}  // namespace

ExitCode run_inspect(const Arguments& arguments) {
  options::options_description description;
  description.add_options()("path", options::value<std::string>()->required(),
                            "the file or folder to explain")(
      "replay", "of a run folder: take its decisions again");
  options::positional_options_description position;
  position.add("path", 1);
  const auto values = parse(arguments, description, position);
  const fs::path path = values["path"].as<std::string>();
  if (std::error_code ignored; !fs::exists(path, ignored)) {
    throw_bad_input(path.string() + " does not exist");
  }
  refuse_other_files(path);
  if (values.count("replay") != 0) {
    replay_run(path);
  } else if (path.extension() == ".jsonl") {
    inspect_decisions(path);
  } else if (adapters::is_adapter(path)) {
    std::cout << adapters::describe_adapter(path);
  } else if (fs::exists(path / io::kManifestName)) {
    inspect_checkpoint(path);
  } else if (is_run_folder(path)) {
    inspect_run(path);
  } else if (is_checkpoints_folder(path)) {
    inspect_checkpoints(path);
  } else if (path.extension() == ".h5" || path.extension() == ".hdf5") {
    std::cout << workloads::describe_data(path);
  } else {
    inspect_model(path);
  }
  return ExitCode::kDone;
}

}  // namespace lorascale::cli
