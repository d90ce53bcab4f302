// The hosts' vote: a few bytes per update by which all ranks learn of a failure, a signal or the
// time, before anything is applied.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>

#include "base/error.hpp"
#include "comm/communicator.hpp"

namespace lorascale::train {

struct Ballot {
  bool stop_requested = false;  // a signal reached this rank
  double elapsed_minutes = 0;   // of the run; rank 0's counts
  bool out_of_memory = false;   // on this rank; the update is to be done again
};

// What all ranks learn.
struct Agreement {
  bool stop_requested = false;
  double elapsed_minutes = 0;
  std::int64_t out_of_memory = 0;  // ranks
  std::int64_t first_rank = 0;     // the lowest of them
};

// Every rank gets: whether anybody was asked to stop, rank 0's clock, and who ran out of memory.
// Where ranks bring errors, rank 0 reports them on one line and all ranks throw that as
// ReportedError, with the code of the lowest failing rank.
Agreement vote(comm::Communicator& host, const Ballot& mine, const std::optional<Error>& error);

// Whether memory ran out, on the host or on a device, whichever library noticed it. An Error of our
// own never counts: what it stands for cannot be done again.
bool is_out_of_memory(const std::exception& failure);

// What `action` throws, as an Error. Where `out_of_memory` is given, running out of memory sets it
// instead.
std::optional<Error> attempt(const std::function<void()>& action, bool* out_of_memory = nullptr);

// A phase that can fail on some ranks: all go on, or all throw.
void together(comm::Communicator& host, const std::function<void()>& action);

// The same; but where ranks run out of memory, all do `relieve` and then `action` once more, a few
// times at most.
void together_retrying(comm::Communicator& host, const std::function<void()>& action,
                       const std::function<void(const Agreement&)>& relieve);

// A phase of rank 0 alone, such as writing a file, that may take longer than a collective is
// waited for: the watchdog of rank 0 is its only limit. Where `out_of_memory` is given, running out
// of memory is no failure but sets it, on all ranks.
void root_alone(comm::Communicator& host, const std::function<void()>& action,
                bool* out_of_memory = nullptr);

}  // namespace lorascale::train
