#include "workloads/diffusion/caches.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/heartbeat.hpp"
#include "io/value_store.hpp"
#include "nn/dtypes.hpp"
#include "workloads/diffusion/pipeline_of_config.hpp"

namespace lorascale::workloads::diffusion {
namespace {

namespace fs = std::filesystem;
using models::diffusion::DiffusionModel;

// Of what is stored: another one where the same keys stand for other values.
constexpr const char* kVersion = "1";

fs::path folder_of(const config::RunConfig& config) {
  return config.data.cache.folder ? fs::path(*config.data.cache.folder)
                                  : fs::path(config.run.output_dir).parent_path() / "cache";
}

// Those of one source have a folder by themselves, which can be deleted by itself.
std::shared_ptr<io::ValueStore> open_store(const fs::path& folder, const std::string& kind,
                                           const std::string& source) {
  const auto digest = sha256_hex(kind + kVersion + source);
  try {
    return std::make_shared<io::ValueStore>(folder / (kind + "-" + digest.substr(0, 12)), digest);
  } catch (const Error& error) {
    spdlog::warn("{}; {} are computed anew by each run", error.what(), kind);
    return nullptr;
  }
}

// Writes what waits; where that fails, nothing more is kept.
bool written(models::diffusion::KeptTensors& kept, const std::function<void()>& action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    if (error.code() != ExitCode::kCannotWrite) {
      throw;
    }
    spdlog::warn("{}; what is missing in the cache is computed when it is asked for", error.what());
    kept.keep_on_disk(nullptr);
    return false;
  }
}

bool is_there(const io::ValueStore& store, const std::vector<std::string>& keys) {
  return std::ranges::all_of(keys, [&](const std::string& key) { return store.has(key); });
}

}  // namespace

void open_caches(const DiffusionModel& model, const config::RunConfig& config) {
  if (!config.data.cache.enabled) {
    return;
  }
  const auto folder = folder_of(config);
  const auto source = source_of(config.model);
  const auto type = [](at::ScalarType dtype) { return nn::float_type(dtype).safetensors; };
  if (!config.data.augment.crop && config.data.augment.color_jitter == 0) {
    model.kept_moments().keep_on_disk(
        open_store(folder, "latents",
                   fmt::format("{} {}", part_fingerprint(source, "vae"),
                               type(model.pipeline().vae().dtype()))));
  }
  if (!model.contexts().trains()) {
    model.kept_contexts().keep_on_disk(
        open_store(folder, "captions",
                   fmt::format("{} {} skip {}", part_fingerprint(source, "text"),
                               type(model.dtype()), config.model.clip_skip)));
  }
}

CacheReport fill_caches(const DiffusionModel& model,
                        const std::vector<const data::PictureDataset*>& data,
                        const CacheShare& share) {
  CacheReport report;
  auto& moments = model.kept_moments();
  auto& contexts = model.kept_contexts();
  std::int64_t number = 0;
  for (const auto* set : data) {
    const auto pictures = set->file().images();
    for (std::int64_t picture = 0; picture < pictures; ++picture) {
      if (number++ % share.ranks != share.rank || share.stop()) {
        continue;
      }
      beat("filling the cache");
      report.looked_at += 1;
      if (auto* store = moments.store();
          store != nullptr && !is_there(*store, set->view_names(picture))) {
        written(moments, [&] { report.made += model.fill_moments(*set->views(picture)); });
      }
      if (contexts.store() != nullptr) {
        const auto& rows = set->settings().rows;
        written(contexts, [&] {
          report.made += model.fill_context(set->caption_ids(picture),
                                            {1, rows.encoders, rows.text_rows, rows.positions});
        });
      }
    }
  }
  for (auto* kept : {&moments, &contexts}) {
    if (auto* store = kept->store(); store != nullptr && written(*kept, [&] { store->write(); })) {
      report.folders.push_back(store->folder().string());
    }
  }
  return report;
}

}  // namespace lorascale::workloads::diffusion
