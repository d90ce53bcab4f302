// What is done for the first time on a device, while its libraries still load what they need, maybe
// over a network: the heart beats from aside, and other ranks are waited for longer.
#pragma once

#include <optional>

#include "base/heartbeat.hpp"
#include "train/world.hpp"

namespace lorascale::train {

class FirstTime {
 public:
  // `phase` is a string literal.
  FirstTime(World& world, const char* phase) : host_(world.host), beating_(phase, kSeconds) {
    if (&world.device != &world.host) {
      device_.emplace(world.device);
    }
  }
  FirstTime(const FirstTime&) = delete;
  FirstTime& operator=(const FirstTime&) = delete;

 private:
  static constexpr double kSeconds = 600;
  static constexpr double kPatience = 5;

  // Of one of the ways that ranks wait for each other.
  class Patience {
   public:
    explicit Patience(comm::Communicator& way) : way_(way), deadline_(way.deadline_seconds()) {
      way_.set_deadline(kPatience * deadline_);
    }
    ~Patience() { way_.set_deadline(deadline_); }
    Patience(const Patience&) = delete;
    Patience& operator=(const Patience&) = delete;

   private:
    comm::Communicator& way_;
    double deadline_;
  };

  Patience host_;
  std::optional<Patience> device_;
  KeepBeating beating_;
};

}  // namespace lorascale::train
