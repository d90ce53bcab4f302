// An adapter again at a lower rank, each layer's change truncated by its singular values: what the
// verb `resize` does. Knows PEFT's folders and files of sd-scripts' form; needs no model.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace lorascale::adapters {

struct ResizeRequest {
  std::filesystem::path adapter;  // or the folder of a run
  std::filesystem::path output;   // a folder, or a file of sd-scripts' form
  // Of each layer, as far as it has as much; absent: as small as holds `share` of the squares of
  // its singular values.
  std::optional<std::int64_t> rank;
  double share = 1;
  std::optional<at::ScalarType> type;  // absent: as stored
};

// Writes it, and returns what became of it, for people, measured on what was written. Error where
// the adapter cannot be read, or has no lower rank that is the same kind of adapter.
std::string resize_adapter(const ResizeRequest& request);

}  // namespace lorascale::adapters
