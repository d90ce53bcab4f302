// The hosts' vote: a few bytes per update by which all ranks learn of a failure, a signal or the
// time, before anything is applied.
#pragma once

#include <optional>

#include "base/error.hpp"
#include "comm/communicator.hpp"

namespace lorascale::train {

struct Ballot {
  bool stop_requested = false;  // a signal reached this rank
  double elapsed_minutes = 0;   // of the run; rank 0's counts
};

// Every rank gets: whether anybody was asked to stop, and rank 0's clock. Where a rank brings an
// error, all ranks throw it, named after the lowest failing rank.
Ballot vote(comm::Communicator& host, const Ballot& mine, const std::optional<Error>& error);

// The part about errors alone: after a phase that can fail on one rank, all go on or all throw.
inline void agree(comm::Communicator& host, const std::optional<Error>& error) {
  vote(host, {}, error);
}

}  // namespace lorascale::train
