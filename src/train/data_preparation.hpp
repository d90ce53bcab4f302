// prepare/ on several ranks: rank 0 works, however long it takes, and the others wait for it.
#pragma once

#include "config/run_config.hpp"
#include "prepare/preparation.hpp"
#include "train/world.hpp"

namespace lorascale::train {

// What rank 0 prepared, known to every rank, which sees the files. Where any rank is asked to stop
// meanwhile, all throw with ExitCode::kStopped, and nothing is kept.
prepare::DataFiles prepare_data(World& world, const config::RunConfig& config);

// data.json of a run's folder: which token files the run reads, and what they were made of. For
// people, report.py, and for the message where the data is another on resume. Rank 0.
void write_data_record(const std::filesystem::path& run, const prepare::DataFiles& files);
// Null where there is none, or it is damaged.
nlohmann::ordered_json read_data_record(const std::filesystem::path& run);
// The token file that the run trained on, if that is still there.
std::optional<std::filesystem::path> trained_on(const std::filesystem::path& run);

}  // namespace lorascale::train
