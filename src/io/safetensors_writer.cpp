#include "io/safetensors_writer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::io {
namespace {

std::string length_field(std::uint64_t length) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(length >> (8 * i) & 0xFF);
  }
  return bytes;
}

[[noreturn]] void throw_unwritable(const std::string& where, const std::string& name,
                                   const std::string& problem) {
  throw Error(ExitCode::kInternal, where + ": tensor " + in_quotes(name) + " " + problem);
}

void check_tensor(const TensorToWrite& tensor, const std::string& where) {
  if (tensor.name == "__metadata__" || tensor.name.find('\0') != std::string::npos) {
    throw_unwritable(where, tensor.name, "has a name that the format reserves or forbids");
  }
  const std::optional<std::uint64_t> bytes = tensor_bytes(tensor.dtype, tensor.shape);
  if (!bytes || *bytes != tensor.data.size()) {
    throw_unwritable(where, tensor.name,
                     "has " + std::to_string(tensor.data.size()) +
                         " bytes, dtype and shape ask for " +
                         (bytes ? std::to_string(*bytes) : "no whole number of bytes"));
  }
}

// Indices in the order of the file.
std::vector<std::size_t> file_order(std::span<const TensorToWrite> tensors,
                                    const std::string& where) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto name_of = [&](std::size_t i) -> const std::string& { return tensors[i].name; };
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return name_of(a) < name_of(b); });
  const auto twice =
      std::adjacent_find(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return name_of(a) == name_of(b); });
  if (twice != order.end()) {
    throw_unwritable(where, name_of(*twice), "is to be written twice");
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return tensors[a].dtype > tensors[b].dtype;
  });
  return order;
}

}  // namespace

std::uint64_t SafetensorsLayout::file_bytes() const {
  return std::accumulate(
      data.begin(), data.end(), std::uint64_t{head.size()},
      [](std::uint64_t sum, std::span<const std::byte> piece) { return sum + piece.size(); });
}

SafetensorsLayout lay_out_safetensors(std::span<const TensorToWrite> tensors,
                                      const SafetensorsMetadata& metadata,
                                      const std::string& where) {
  std::vector<TensorInfo> infos;
  SafetensorsLayout layout;
  infos.reserve(tensors.size());
  layout.data.reserve(tensors.size());
  std::uint64_t offset = 0;
  for (const std::size_t i : file_order(tensors, where)) {
    const TensorToWrite& tensor = tensors[i];
    check_tensor(tensor, where);
    infos.push_back({tensor.name, tensor.dtype, tensor.shape, offset, offset + tensor.data.size()});
    layout.data.push_back(tensor.data);
    offset += tensor.data.size();
  }
  std::string header;
  try {
    header = compose_safetensors_header(infos, metadata, where);
  } catch (const nlohmann::json::exception&) {
    throw Error(ExitCode::kInternal, where + ": a tensor name or metadata text is not valid UTF-8");
  }
  layout.head = length_field(header.size()) + header;
  return layout;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       const SafetensorsMetadata& metadata) {
  const SafetensorsLayout layout = lay_out_safetensors(tensors, metadata, path.string());
  AtomicFile file(path);
  file.reserve(layout.file_bytes());
  file.write(std::as_bytes(std::span(layout.head)));
  for (const std::span<const std::byte> piece : layout.data) {
    file.write(piece);
  }
  file.commit();
}

}  // namespace lorascale::io
