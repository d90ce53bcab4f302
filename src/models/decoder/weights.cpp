// Reading a Hugging Face folder into a Decoder: names mapped, shapes and types checked, data read
// in parallel straight into the weights where the stored type is the wanted one.
#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "io/model_reader.hpp"
#include "io/untrusted_text.hpp"
#include "models/decoder/decoder.hpp"
#include "nn/dtypes.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::models::decoder {
namespace {

constexpr std::string_view kPrefix = "model.";

// Files saved from the base model lack the prefix "model.".
class KeyMap {
 public:
  explicit KeyMap(const io::ModelReader& reader) : reader_(reader) {
    bare_ = reader.find("model.embed_tokens.weight") == nullptr &&
            reader.find("embed_tokens.weight") != nullptr;
  }
  [[nodiscard]] std::string stored(const std::string& key) const {
    return bare_ && key.starts_with(kPrefix) ? key.substr(kPrefix.size()) : key;
  }
  [[nodiscard]] const io::TensorInfo& at(const std::string& key) const {
    return reader_.at(stored(key));
  }

 private:
  const io::ModelReader& reader_;
  bool bare_ = false;
};

at::ScalarType float_type(const io::TensorInfo& info, const std::string& where) {
  const auto type = nn::float_type_stored_as(io::dtype_name(info.dtype));
  if (!type) {
    throw_bad_input(where + ": tensor " + io::in_quotes(info.name) + " has type " +
                    std::string(io::dtype_name(info.dtype)) +
                    "; only F32, F16 and BF16 weights are supported");
  }
  return *type;
}

void check_shape(const io::TensorInfo& info, const std::vector<std::int64_t>& expected,
                 const std::string& where) {
  if (info.shape == expected) {
    return;
  }
  const auto text = [](const std::vector<std::int64_t>& shape) {
    std::string out = "[";
    for (const auto size : shape) {
      out += (out.size() > 1 ? ", " : "") + std::to_string(size);
    }
    return out + "]";
  };
  throw_bad_input(where + ": tensor " + io::in_quotes(info.name) + " has shape " +
                  text(info.shape) + ", but config.json asks for " + text(expected));
}

// A tensor of the file that is neither used nor known to be harmless would change the result.
void check_no_surprises(const io::ModelReader& reader, const KeyMap& keys,
                        const std::vector<nn::ParameterSlot>& slots, bool tied) {
  std::vector<std::string> used;
  for (const auto& slot : slots) {
    for (const auto& part : slot.parts) {
      used.push_back(keys.stored(part.key));
    }
  }
  std::sort(used.begin(), used.end());
  for (const auto& key : reader.keys()) {
    const bool harmless =
        key.ends_with(".rotary_emb.inv_freq") || (tied && key == "lm_head.weight");
    if (!harmless && !std::binary_search(used.begin(), used.end(), key)) {
      throw_bad_input(
          reader.path().string() + ": tensor " + io::in_quotes(key) +
          " has no place in a model of this config.json; is it another architecture, or an "
          "adapter that must be merged first?");
    }
  }
}

// Every tensor in its place, of its shape and of a known type.
void check_tensors(const KeyMap& keys, const std::vector<nn::ParameterSlot>& slots,
                   const std::string& where) {
  for (const auto& slot : slots) {
    for (const auto& part : slot.parts) {
      const auto& info = keys.at(part.key);
      check_shape(info, part.shape, where);
      float_type(info, where);
    }
  }
}

// A sum is not finite where an element is not, and costs one pass without a copy. A sum of finite
// elements may overflow, which is rare enough for a second look.
bool is_finite(const at::Tensor& tensor) {
  return std::isfinite(tensor.sum(at::kFloat).item<float>()) ||
         tensor.isfinite().all().item<bool>();
}

// Where one part of a slot is read to, and what happens afterwards.
struct PendingPart {
  at::Tensor staging;  // CPU, stored type
  at::Tensor target;   // view of the weight
};

// A head that a tied model's file holds all the same must be the embedding; if not, one of the file
// and its config.json is wrong, and transformers takes the head.
void check_tied_head(const io::ModelReader& reader, const KeyMap& keys, const std::string& where) {
  constexpr const char* kHead = "lm_head.weight";
  const auto names = reader.keys();
  if (std::find(names.begin(), names.end(), kHead) == names.end()) {
    return;
  }
  const auto read = [&](const std::string& name, const io::TensorInfo& info) {
    at::Tensor tensor = at::empty(info.shape, at::TensorOptions().dtype(float_type(info, where)));
    const std::array requests = {io::ModelReader::ReadRequest{name, nn::writable_bytes(tensor)}};
    reader.read_all(requests);
    return tensor;
  };
  const auto& embedding = keys.at("model.embed_tokens.weight");
  const auto& head = reader.at(kHead);
  if (head.shape != embedding.shape ||
      !read(kHead, head)
           .equal(read(keys.stored("model.embed_tokens.weight"), embedding)
                      .to(float_type(head, where)))) {
    throw_bad_input(where +
                    ": lm_head.weight is not model.embed_tokens.weight, although config.json has "
                    "tie_word_embeddings: true; set that to false, or remove the tensor");
  }
}

}  // namespace

std::unique_ptr<Decoder> read_decoder_shapes(const std::filesystem::path& path,
                                             std::optional<at::ScalarType> dtype) {
  const auto folder = io::model_folder(path);
  auto config = read_decoder_config(folder / "config.json");
  add_generation_config(folder / "generation_config.json", config);
  const io::ModelReader reader(path);
  const KeyMap keys(reader);
  const std::string where = path.string();
  const auto stored = float_type(keys.at("model.embed_tokens.weight"), where);
  auto shapes = std::make_unique<Decoder>(config, dtype.value_or(stored), at::kMeta);
  const auto slots = shapes->parameter_slots();
  check_tensors(keys, slots, where);
  check_no_surprises(reader, keys, slots, config.tied_embeddings);
  return shapes;
}

std::unique_ptr<Decoder> load_decoder(const std::filesystem::path& folder,
                                      std::optional<at::ScalarType> dtype, at::Device device) {
  // Without memory first: a config.json that asks for more than the file holds ends here.
  const auto shapes = read_decoder_shapes(folder, dtype);
  const auto& config = shapes->config();
  const auto type = shapes->dtype();
  const io::ModelReader reader(folder);
  const KeyMap keys(reader);
  const std::string where = folder.string();
  if (config.tied_embeddings) {
    check_tied_head(reader, keys, where);
  }
  auto model = std::make_unique<Decoder>(config, type, device);
  const auto slots = model->parameter_slots();

  // Slot by slot, so that no more than one of them is staged at a time.
  for (const auto& slot : slots) {
    beat("reading the model");
    std::vector<PendingPart> pending;
    std::vector<std::string> names;
    std::int64_t first = 0;
    for (const auto& part : slot.parts) {
      const auto in_file = float_type(keys.at(part.key), where);
      const at::Tensor target = slot.value->narrow(0, first, part.shape[0]);
      first += part.shape[0];
      const bool direct = target.is_cpu() && target.scalar_type() == in_file;
      pending.push_back(
          {direct ? target : at::empty(part.shape, at::TensorOptions().dtype(in_file)), target});
      names.push_back(keys.stored(part.key));
    }
    std::vector<io::ModelReader::ReadRequest> requests;
    for (std::size_t i = 0; i < pending.size(); ++i) {
      requests.push_back({names[i], nn::writable_bytes(pending[i].staging)});
    }
    reader.read_all(requests);
    for (std::size_t i = 0; i < pending.size(); ++i) {
      if (!pending[i].staging.is_same(pending[i].target)) {
        pending[i].target.copy_(pending[i].staging);
      }
      if (!is_finite(pending[i].staging)) {
        throw_bad_input(where + ": tensor " + io::in_quotes(names[i]) +
                        " holds NaN or infinite values; the file is damaged, get it again");
      }
      if (type == at::kHalf && pending[i].staging.scalar_type() != at::kHalf &&
          !is_finite(pending[i].target)) {
        throw_bad_input(where + ": tensor " + io::in_quotes(names[i]) +
                        " holds values beyond the range of fp16; set model.dtype to bf16 or fp32");
      }
    }
  }
  return model;
}

}  // namespace lorascale::models::decoder
