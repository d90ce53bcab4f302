// What is done for the first time on a device, while its libraries still load what they need, maybe
// over a network: the heart beats from aside, and other ranks are waited for longer.
#pragma once

#include "base/heartbeat.hpp"
#include "comm/communicator.hpp"

namespace lorascale::train {

class FirstTime {
 public:
  // `phase` is a string literal.
  FirstTime(comm::Communicator& host, const char* phase)
      : host_(host), deadline_(host.deadline_seconds()), beating_(phase, kSeconds) {
    host_.set_deadline(kPatience * deadline_);
  }
  ~FirstTime() { host_.set_deadline(deadline_); }
  FirstTime(const FirstTime&) = delete;
  FirstTime& operator=(const FirstTime&) = delete;

 private:
  static constexpr double kSeconds = 600;
  static constexpr double kPatience = 5;

  comm::Communicator& host_;
  double deadline_;
  KeepBeating beating_;
};

}  // namespace lorascale::train
