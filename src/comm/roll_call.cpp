#include "comm/roll_call.hpp"

#include <unistd.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <thread>

namespace lorascale::comm {
namespace {

constexpr int kTag = 17;

}  // namespace

RollCall::RollCall(MPI_Comm world) {
  MPI_Comm_dup(world, &channel_);
  MPI_Comm_set_errhandler(channel_, MPI_ERRORS_RETURN);
  MPI_Comm_rank(channel_, &rank_);
  MPI_Comm_size(channel_, &size_);
  std::array<char, 64> mine{};
  gethostname(mine.data(), mine.size() - 1);
  std::vector<char> all(mine.size() * static_cast<std::size_t>(size_));
  MPI_Allgather(mine.data(), static_cast<int>(mine.size()), MPI_CHAR, all.data(),
                static_cast<int>(mine.size()), MPI_CHAR, channel_);
  for (int rank = 0; rank < size_; ++rank) {
    hosts_.emplace_back(all.data() + static_cast<std::size_t>(rank) * mine.size());
  }
}

RollCall::~RollCall() {
  int finalised = 0;
  MPI_Finalized(&finalised);
  // Freeing waits for the others; a rank that fails leaves at once.
  if (finalised == 0 && std::uncaught_exceptions() == 0 && sent_.empty()) {
    MPI_Comm_free(&channel_);
  }
}

void RollCall::enter(const char* collective) {
  collective_ = collective;
  ++sequence_;
}

RollCall::Message RollCall::message(bool question) const {
  Message message;
  message.is_question = question ? 1 : 0;
  message.sequence = sequence_;
  std::strncpy(message.collective.data(), collective_, message.collective.size() - 1);
  return message;
}

void RollCall::send(int to, bool question) {
  sent_.push_back(message(question));
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Isend(&sent_.back(), sizeof(Message), MPI_BYTE, to, kTag, channel_, &request);
  if (request != MPI_REQUEST_NULL) {
    MPI_Request_free(&request);
  }
}

bool RollCall::receive(Message& message, int& from) {
  int there = 0;
  MPI_Status status;
  if (MPI_Iprobe(MPI_ANY_SOURCE, kTag, channel_, &there, &status) != MPI_SUCCESS || there == 0) {
    return false;
  }
  from = status.MPI_SOURCE;
  return MPI_Recv(&message, sizeof(Message), MPI_BYTE, from, kTag, channel_, MPI_STATUS_IGNORE) ==
         MPI_SUCCESS;
}

void RollCall::answer() {
  Message question;
  int from = 0;
  while (receive(question, from)) {
    if (question.is_question != 0) {
      send(from, false);
    }
  }
}

std::string RollCall::ask(double seconds) {
  using Clock = std::chrono::steady_clock;
  std::vector<Message> answers(static_cast<std::size_t>(size_));
  std::vector<bool> answered(static_cast<std::size_t>(size_));
  int missing = size_ - 1;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_) {
      send(rank, true);
    }
  }
  const auto start = Clock::now();
  while (missing > 0 && std::chrono::duration<double>(Clock::now() - start).count() < seconds) {
    Message message;
    int from = 0;
    if (!receive(message, from)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    } else if (message.is_question != 0) {
      send(from, false);
    } else if (!answered[static_cast<std::size_t>(from)]) {
      answered[static_cast<std::size_t>(from)] = true;
      answers[static_cast<std::size_t>(from)] = message;
      --missing;
    }
  }
  return describe(answers, answered);
}

std::string RollCall::describe(const std::vector<Message>& answers,
                               const std::vector<bool>& answered) const {
  std::string text;
  const auto add = [&](int rank, const std::string& what) {
    text += (text.empty() ? "" : "; ") + std::string("rank ") + std::to_string(rank) + " (" +
            host_of(rank) + ") " + what;
  };
  for (int rank = 0; rank < size_; ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    if (rank == rank_) {
      continue;
    }
    if (!answered[r]) {
      add(rank, "does not answer: it is gone, stopped or stuck outside any collective");
    } else if (answers[r].sequence != sequence_ ||
               std::string(answers[r].collective.data()) != collective_) {
      add(rank, "waits in " + std::string(answers[r].collective.data()) + " number " +
                    std::to_string(answers[r].sequence) + ", this rank in number " +
                    std::to_string(sequence_));
    }
  }
  return text.empty() ? "all ranks wait in the same call: the network between them is broken"
                      : text;
}

}  // namespace lorascale::comm
