#include "train/vote.hpp"

#include <array>
#include <string>
#include <vector>

namespace lorascale::train {
namespace {

[[noreturn]] void throw_common_error(comm::Communicator& host, const std::optional<Error>& error) {
  // Lowest failing rank first: its code and text go to everybody.
  std::array<std::int64_t, 1> first = {error ? host.rank() : host.size()};
  host.all_reduce(std::span(first), comm::ReduceOp::kMin);
  const int root = static_cast<int>(first[0]);
  std::string text = host.rank() == root ? std::string(error->what()) : std::string();
  std::array<std::int64_t, 2> header = {static_cast<std::int64_t>(text.size()),
                                        error ? static_cast<std::int64_t>(error->code()) : 0};
  host.broadcast(std::span(header), root);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(header[0]));
  std::copy(text.begin(), text.end(), bytes.begin());
  host.broadcast(std::span(bytes), root);
  text.assign(bytes.begin(), bytes.end());
  if (host.size() > 1 && !text.starts_with("rank ")) {
    text = "rank " + std::to_string(root) + ": " + text;
  }
  throw Error(static_cast<ExitCode>(header[1]), text);
}

}  // namespace

Ballot vote(comm::Communicator& host, const Ballot& mine, const std::optional<Error>& error) {
  std::array<double, 3> ballot = {error ? 1.0 : 0.0, mine.stop_requested ? 1.0 : 0.0,
                                  host.rank() == 0 ? mine.elapsed_minutes : 0.0};
  host.all_reduce(std::span(ballot), comm::ReduceOp::kMax);
  if (ballot[0] != 0) {
    throw_common_error(host, error);
  }
  return {ballot[1] != 0, ballot[2]};
}

}  // namespace lorascale::train
