#include "adapters/full_export.hpp"

#include <array>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "io/model_reader.hpp"
#include "io/safetensors_writer.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::adapters {
namespace {

constexpr std::array kCompanions = {"generation_config.json",
                                    "tokenizer.json",
                                    "tokenizer_config.json",
                                    "special_tokens_map.json",
                                    "tokenizer.model",
                                    "vocab.json",
                                    "merges.txt",
                                    "chat_template.jinja",
                                    "added_tokens.json"};

constexpr std::uint64_t kMaxCompanionBytes = std::uint64_t{1} << 30;

io::Dtype dtype_of(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return io::Dtype::kF16;
    case at::kBFloat16:
      return io::Dtype::kBF16;
    default:
      LS_ASSERT(type == at::kFloat);
      return io::Dtype::kF32;
  }
}

// config.json names the stored type; ours may differ from the base's.
std::string config_with_type(const std::filesystem::path& base, at::ScalarType type) {
  auto config = nlohmann::json::parse(io::read_file(base / "config.json", 1 << 20));
  const char* name = type == at::kHalf ? "float16" : type == at::kBFloat16 ? "bfloat16" : "float32";
  config.erase("torch_dtype");
  config["dtype"] = name;
  return config.dump(2) + "\n";
}

}  // namespace

void write_full_model(const std::filesystem::path& folder,
                      const std::vector<nn::ParameterSlot>& slots,
                      const std::filesystem::path& base_path) {
  const auto base = io::model_folder(base_path);
  io::create_folders(folder);
  std::vector<at::Tensor> host;  // keeps device copies alive
  std::vector<io::TensorToWrite> tensors;
  for (const auto& slot : slots) {
    host.push_back(slot.value->cpu());
    std::int64_t first = 0;
    for (const auto& part : slot.parts) {
      const at::Tensor rows = host.back().narrow(0, first, part.shape[0]);
      first += part.shape[0];
      tensors.push_back({part.key, dtype_of(rows.scalar_type()), part.shape, nn::bytes_of(rows)});
    }
  }
  io::write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  io::write_file_atomically(folder / "config.json", std::string_view(config_with_type(
                                                        base, slots.front().value->scalar_type())));
  for (const char* name : kCompanions) {
    if (std::filesystem::exists(base / name)) {
      const auto text = io::read_file(base / name, kMaxCompanionBytes);
      io::write_file_atomically(folder / name, std::string_view(text));
    }
  }
}

}  // namespace lorascale::adapters
