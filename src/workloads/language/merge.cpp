// The verb `merge` for language models: a base and a PEFT adapter to a Hugging Face folder.
#include "adapters/formats/merge.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "adapters/base_name.hpp"
#include "adapters/formats/weights_file.hpp"
#include "base/error.hpp"
#include "models/decoder/decoder.hpp"
#include "models/decoder/export.hpp"
#include "nn/dtypes.hpp"
#include "workloads/language/language.hpp"

namespace lorascale::workloads::language {

std::string merge(const MergeRequest& request) {
  const auto adapter = adapters::read_peft_adapter(request.adapter);
  const auto model = models::decoder::load_decoder(
      request.model, nn::float_type_named(request.dtype), at::Device(at::kCPU));
  if (const auto warning = adapters::warning_of_other_base(adapter, request.model)) {
    spdlog::warn("{}", *warning);
  }
  const auto end = request.end_token_id.value_or(adapter.answer_end_id);
  if (end >= model->vocabulary() || (request.end_token_id && end < 0)) {
    throw Error(
        request.end_token_id ? ExitCode::kUsage : ExitCode::kBadInput,
        fmt::format("the end token {} is none of the model's {} tokens; check --end-token-id", end,
                    model->vocabulary()));
  }
  adapters::merge_into_weights(adapter, model->sites());
  adapters::write_weights(request.output, model->file_slots());
  models::decoder::write_companions(request.output, request.model, model->dtype(), end);
  std::string done =
      fmt::format("merged {} layers into {}", adapter.modules.size(), request.output.string());
  const auto& known = model->config().server_eos_ids;
  if (end >= 0 && std::find(known.begin(), known.end(), end) == known.end()) {
    done += "\nanswers end with token " + std::to_string(end) +
            ", which the base's files did not name: generation_config.json now does";
  }
  return done;
}

}  // namespace lorascale::workloads::language
