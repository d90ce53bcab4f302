#include "adapters/formats/kohya_layers.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors_writer.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::adapters {
namespace {

constexpr std::size_t kLegacyStart = 0x100000, kLegacyBytes = 0x10000;

std::string key_of(const std::string& name, std::string_view part) {
  return name + std::string(part);
}

// SHA-256 of all tensors, and of a piece of the file with the metadata so far.
void add_hashes(std::span<const io::TensorToWrite> tensors, io::SafetensorsMetadata& metadata) {
  auto of_scripts = metadata;
  std::erase_if(of_scripts, [](const auto& entry) { return !entry.first.starts_with("ss_"); });
  const auto layout = io::lay_out_safetensors(tensors, of_scripts, "adapter");
  Sha256 all, piece;
  std::size_t place = 0;
  const auto add_piece = [&](std::span<const std::byte> bytes) {
    const auto begin = std::clamp(kLegacyStart, place, place + bytes.size());
    const auto end = std::clamp(kLegacyStart + kLegacyBytes, place, place + bytes.size());
    piece.update(bytes.subspan(begin - place, end - begin));
    place += bytes.size();
  };
  add_piece(std::as_bytes(std::span(layout.head)));
  for (const auto& bytes : layout.data) {
    all.update(bytes);
    add_piece(bytes);
  }
  metadata["sshs_model_hash"] = all.hex();
  metadata["sshs_legacy_hash"] = piece.hex().substr(0, 8);
}

// The number beside the factors; their rank where there is none, or 0, which sd-scripts takes for
// it.
double read_alpha(const io::SafetensorsFile& file, const std::string& name, std::int64_t rank) {
  const auto key = key_of(name, kKohyaAlpha);
  if (file.find(key) == nullptr) {
    return static_cast<double>(rank);
  }
  const double value = read_number(file, key);
  return value == 0 ? static_cast<double>(rank) : value;
}

}  // namespace

std::set<std::string> kohya_layer_names(const io::SafetensorsFile& file) {
  std::set<std::string> names;
  for (const auto& tensor : file.tensors()) {
    const auto dot = tensor.name.find('.');
    const auto part = dot == std::string::npos ? std::string() : tensor.name.substr(dot);
    if (part != kKohyaDown && part != kKohyaUp && part != kKohyaAlpha && part != kKohyaDora) {
      throw_bad_input(file.path().string() + ": " + io::in_quotes(tensor.name) +
                      " belongs to a kind of adapter that cannot be read; only LoRA of sd-scripts' "
                      "form (lora_down, lora_up, alpha, dora_scale) and IA3 of LyCORIS' can");
    }
    names.insert(tensor.name.substr(0, dot));
  }
  return names;
}

KohyaLayer read_kohya_layer(const io::SafetensorsFile& file, const std::string& name,
                            bool with_magnitude) {
  for (const auto part : {kKohyaDown, kKohyaUp}) {
    if (file.find(key_of(name, part)) == nullptr) {
      throw_bad_input(file.path().string() + ": " + io::in_quotes(name) + " has no " +
                      std::string(part.substr(1)) + "; the file is incomplete, get it again");
    }
  }
  KohyaLayer layer;
  layer.a = read_factor(file, key_of(name, kKohyaDown));
  layer.b = read_factor(file, key_of(name, kKohyaUp));
  if (layer.a.size(0) != layer.b.size(1) || layer.b.numel() != layer.b.size(0) * layer.b.size(1)) {
    throw_bad_input(file.path().string() + ": factors of " + io::in_quotes(name) +
                    " do not fit together; the file is damaged, get it again");
  }
  layer.alpha = read_alpha(file, name, layer.a.size(0));
  if (with_magnitude && file.find(key_of(name, kKohyaDora)) != nullptr) {
    layer.magnitude = read_vector(file, key_of(name, kKohyaDora));
    if (layer.magnitude.size(0) != layer.b.size(0)) {
      throw_bad_input(fmt::format("{}: {} has {} magnitudes for {} outputs", file.path().string(),
                                  io::in_quotes(name), layer.magnitude.size(0), layer.b.size(0)));
    }
  }
  return layer;
}

void write_kohya_layers(const std::filesystem::path& file,
                        const std::map<std::string, KohyaLayer>& layers, at::ScalarType type,
                        io::SafetensorsMetadata metadata) {
  FactorsToWrite factors(type);
  for (const auto& [name, layer] : layers) {
    factors.add(key_of(name, kKohyaDown), layer.a);
    factors.add(key_of(name, kKohyaUp), layer.b);
    factors.add_as_is(key_of(name, kKohyaAlpha), at::empty({}, at::kFloat).fill_(layer.alpha));
    if (layer.magnitude.defined()) {
      // By the first number of this shape readers know that it is of outputs.
      std::vector<std::int64_t> shape(static_cast<std::size_t>(layer.b.dim()), 1);
      shape[0] = -1;
      factors.add(key_of(name, kKohyaDora), layer.magnitude.view(shape));
    }
  }
  write_kohya_file(file, factors, std::move(metadata));
}

void write_kohya_file(const std::filesystem::path& file, const FactorsToWrite& tensors,
                      io::SafetensorsMetadata metadata) {
  const auto of_scripts = [](const auto& entry) { return entry.first.starts_with("ss_"); };
  if (std::ranges::any_of(metadata, of_scripts)) {
    add_hashes(tensors.tensors(), metadata);
  }
  if (file.has_parent_path()) {
    io::create_folders(file.parent_path());
  }
  io::write_safetensors(file, tensors.tensors(), metadata);
}

std::string kohya_number(double value) {
  const auto text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

}  // namespace lorascale::adapters
