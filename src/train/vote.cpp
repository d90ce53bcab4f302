#include "train/vote.hpp"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <array>
#include <new>
#include <string>
#include <vector>

#include "base/heartbeat.hpp"
#include "base/logging.hpp"
#include "base/out_of_memory.hpp"
#include "train/tensor_memory.hpp"

namespace lorascale::train {
namespace {

// Enough for any write that still makes progress.
constexpr double kPatience = 100;

constexpr int kRetries = 3;

struct Failure {
  std::int64_t code = 0;  // 0: none
  std::string text;
};

// On rank 0: what happened, in one line: the error of the lowest rank, of one that did not only
// lose its peers where there is one. Equal errors of all ranks need no rank in front.
Failure sum_up(const std::vector<std::vector<std::uint8_t>>& texts,
               const std::vector<std::int64_t>& codes) {
  Failure first;
  std::size_t first_rank = 0, failed = 0, equal = 0;
  for (std::size_t rank = 0; rank < codes.size(); ++rank) {
    if (codes[rank] == 0) {
      continue;
    }
    const std::string text(texts[rank].begin(), texts[rank].end());
    constexpr auto kPeerLost = static_cast<std::int64_t>(ExitCode::kPeerLost);
    if (failed++ == 0 || (first.code == kPeerLost && codes[rank] != kPeerLost)) {
      first = {codes[rank], text};
      first_rank = rank;
      equal = 0;
    }
    equal += text == first.text ? 1 : 0;
  }
  if (equal < codes.size()) {
    first.text = fmt::format("rank {}: {}", first_rank, first.text);
    if (failed > 1) {
      first.text += fmt::format(" ({} of {} ranks failed; see their logs)", failed, codes.size());
    }
  }
  return first;
}

[[noreturn]] void throw_common_error(comm::Communicator& host, const std::optional<Error>& error) {
  const std::string mine = error ? error->what() : "";
  const std::array<std::int64_t, 1> code = {error ? static_cast<std::int64_t>(error->code()) : 0};
  std::vector<std::int64_t> codes(static_cast<std::size_t>(host.size()));
  host.all_gather(std::span<const std::int64_t>(code), std::span(codes));
  const auto texts = host.gather_to_root(
      std::span(reinterpret_cast<const std::uint8_t*>(mine.data()), mine.size()));
  Failure common;
  if (host.rank() == 0) {
    common = sum_up(texts, codes);
    report_failure(common.text);  // before anybody may leave and have mpirun end the rest
  }
  host.broadcast(std::span(&common.code, 1), 0);
  host.broadcast_from_root(common.text);
  throw ReportedError(static_cast<ExitCode>(common.code), common.text);
}

}  // namespace

Agreement vote(comm::Communicator& host, const Ballot& mine, const std::optional<Error>& error) {
  // Sums of small whole numbers and of one clock: exact in any order.
  std::array<double, 4> ballot = {error ? 1.0 : 0.0, mine.stop_requested ? 1.0 : 0.0,
                                  host.rank() == 0 ? mine.elapsed_minutes : 0.0,
                                  mine.out_of_memory ? 1.0 : 0.0};
  host.all_reduce(std::span(ballot));
  if (ballot[0] != 0) {
    throw_common_error(host, error);
  }
  Agreement agreed{ballot[1] != 0, ballot[2], static_cast<std::int64_t>(ballot[3]), 0};
  if (agreed.out_of_memory > 0) {
    std::array<std::int64_t, 1> first = {mine.out_of_memory ? host.rank() : host.size()};
    host.all_reduce(std::span(first), comm::ReduceOp::kMin);
    agreed.first_rank = first[0];
  }
  return agreed;
}

// By its type where it has one of its own, and by its text, as CUDA's libraries report it.
bool is_out_of_memory(const std::exception& failure) {
  constexpr int kCudaErrorMemoryAllocation = 2;
  if (dynamic_cast<const Error*>(&failure) != nullptr) {
    return false;
  }
  if (dynamic_cast<const std::bad_alloc*>(&failure) != nullptr ||
      dynamic_cast<const c10::OutOfMemoryError*>(&failure) != nullptr) {
    return true;
  }
  if (const auto* device = dynamic_cast<const c10::AcceleratorError*>(&failure)) {
    return device->get_error_code() == kCudaErrorMemoryAllocation ||
           tells_of_no_memory(device->what_without_backtrace());
  }
  return tells_of_no_memory(failure.what());
}

std::optional<Error> attempt(const std::function<void()>& action, bool* out_of_memory) {
  const auto no_memory = [&]() -> std::optional<Error> {
    if (out_of_memory != nullptr) {
      *out_of_memory = true;
      return std::nullopt;
    }
    return Error(ExitCode::kBadConfig,
                 "out of memory; take a smaller batch.micro, or " + memory_remedy(at::kCPU));
  };
  try {
    action();
    return std::nullopt;
  } catch (const Error& failure) {
    return failure;
  } catch (const std::exception& failure) {
    if (is_out_of_memory(failure)) {
      return no_memory();
    }
    const std::string text = failure.what();  // libtorch's go on with a backtrace
    return Error(ExitCode::kInternal, "internal error: " + text.substr(0, text.find('\n')));
  }
}

void together(comm::Communicator& host, const std::function<void()>& action) {
  vote(host, {}, attempt(action));
}

void together_retrying(comm::Communicator& host, const std::function<void()>& action,
                       const std::function<void(const Agreement&)>& relieve) {
  for (int left = kRetries;; --left) {
    Ballot ballot;
    const auto error = attempt(action, left > 0 ? &ballot.out_of_memory : nullptr);
    const Agreement agreed = vote(host, ballot, error);
    if (agreed.out_of_memory == 0) {
      return;
    }
    relieve(agreed);
  }
}

void root_alone(comm::Communicator& host, const std::function<void()>& action,
                bool* out_of_memory) {
  std::optional<Error> error;
  Ballot ballot;
  if (host.rank() == 0) {
    beat("work of rank 0 alone");
    error = attempt(action, out_of_memory != nullptr ? &ballot.out_of_memory : nullptr);
  }
  const double deadline = host.deadline_seconds();
  host.set_deadline(deadline * kPatience);
  const Agreement agreed = vote(host, ballot, error);
  host.set_deadline(deadline);
  if (out_of_memory != nullptr) {
    *out_of_memory = agreed.out_of_memory > 0;
  }
}

}  // namespace lorascale::train
