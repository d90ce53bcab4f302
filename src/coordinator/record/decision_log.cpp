#include "coordinator/record/decision_log.hpp"

#include <utility>

#include "base/error.hpp"

namespace lorascale::coordinator {
namespace {

// All members but the digest, as an unfinished object.
std::string unchained_text(const Decision& decision) {
  Json head;
  head["sequence"] = decision.sequence;
  head["step"] = decision.step;
  head["samples"] = decision.samples;
  head["kind"] = decision.kind;
  head["reason"] = decision.reason;
  std::string text = head.dump();
  text.pop_back();
  return text + ",\"inputs\":" + decision.inputs;
}

std::uint64_t link(const Decision& decision, std::uint64_t before) {
  return fnv1a64(unchained_text(decision), before);
}

}  // namespace

void DecisionLog::add(std::int64_t step, std::int64_t samples, const std::string& kind,
                      const std::string& reason, const Json& inputs) {
  Decision decision;
  decision.sequence = ++sequence_;
  decision.step = step;
  decision.samples = samples;
  decision.kind = kind;
  decision.reason = reason;
  decision.inputs = inputs.dump();
  decision.chain = chain_ = link(decision, chain_);
  pending_.push_back(std::move(decision));
}

std::vector<Decision> DecisionLog::take() {
  return std::exchange(pending_, {});
}

std::string to_json_line(const Decision& decision) {
  return unchained_text(decision) + ",\"chain\":\"" + hex64(decision.chain) + "\"}";
}

Decision decision_from_json_line(const std::string& line) {
  try {
    const Json json = Json::parse(line);
    Decision decision;
    decision.sequence = json.at("sequence").get<std::int64_t>();
    decision.step = json.at("step").get<std::int64_t>();
    decision.samples = json.at("samples").get<std::int64_t>();
    decision.kind = json.at("kind").get<std::string>();
    decision.reason = json.at("reason").get<std::string>();
    decision.inputs = json.at("inputs").dump();
    decision.chain = hex64_from(json.at("chain").get<std::string>());
    return decision;
  } catch (const Json::exception& error) {
    throw_bad_input(std::string("a line of the decision log is damaged: ") + error.what());
  }
}

std::optional<std::size_t> first_broken_link(std::span<const Decision> decisions,
                                             std::uint64_t start) {
  std::uint64_t chain = start;
  for (std::size_t i = 0; i < decisions.size(); ++i) {
    chain = link(decisions[i], chain);
    if (chain != decisions[i].chain) {
      return i;
    }
  }
  return std::nullopt;
}

}  // namespace lorascale::coordinator
