// The hosts' vote: a few bytes per update by which all ranks learn of a failure, a signal or the
// time, before anything is applied.
#pragma once

#include <functional>
#include <optional>

#include "base/error.hpp"
#include "comm/communicator.hpp"

namespace lorascale::train {

struct Ballot {
  bool stop_requested = false;  // a signal reached this rank
  double elapsed_minutes = 0;   // of the run; rank 0's counts
};

// Every rank gets: whether anybody was asked to stop, and rank 0's clock. Where ranks bring errors,
// rank 0 reports them on one line and all ranks throw that as ReportedError, with the code of the
// lowest failing rank.
Ballot vote(comm::Communicator& host, const Ballot& mine, const std::optional<Error>& error);

// What `action` throws, as an Error.
std::optional<Error> attempt(const std::function<void()>& action);

// A phase that can fail on some ranks: all go on, or all throw.
void together(comm::Communicator& host, const std::function<void()>& action);

// A phase of rank 0 alone, such as writing a file, that may take longer than a collective is
// waited for: the watchdog of rank 0 is its only limit.
void root_alone(comm::Communicator& host, const std::function<void()>& action);

}  // namespace lorascale::train
