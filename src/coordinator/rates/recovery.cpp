#include "coordinator/rates/recovery.hpp"

namespace lorascale::coordinator {
namespace {

Json to_json(const Recovery& recovery) {
  return {{"count", recovery.count},
          {"step", recovery.step},
          {"at", recovery.at},
          {"warmup", recovery.warmup}};
}

Recovery from_json(const Json& json) {
  return {json.at("count").get<std::int64_t>(), json.at("step").get<std::int64_t>(),
          json.at("at").get<std::int64_t>(), json.at("warmup").get<std::int64_t>()};
}

}  // namespace

double recovery_factor(const Recovery& recovery, std::int64_t position, std::int64_t samples) {
  double factor = 1;
  for (std::int64_t i = 0; i < recovery.count; ++i) {
    factor *= 0.5;
  }
  const std::int64_t end = position - recovery.at + samples;
  if (recovery.count == 0 || end >= recovery.warmup) {
    return factor;
  }
  return factor * (static_cast<double>(end) / static_cast<double>(recovery.warmup));
}

Json RecoveryTrack::save() const {
  if (now_.count == 0) {
    return nullptr;
  }
  return {{"now", to_json(now_)}, {"last", to_json(last_)}};
}

void RecoveryTrack::load(const Json& saved) {
  now_ = from_json(saved.at("now"));
  last_ = from_json(saved.at("last"));
}

}  // namespace lorascale::coordinator
