// Names the ranks that keep the others waiting. A rank whose collective passed its deadline asks
// everybody; ranks that wait in a collective themselves answer with where they are, the others do
// not answer. Messages travel on a communicator of their own, beside those of the collectives.
#pragma once

#include <mpi.h>

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace lorascale::comm {

class RollCall {
 public:
  // Collective over `world`.
  explicit RollCall(MPI_Comm world);
  ~RollCall();
  RollCall(const RollCall&) = delete;
  RollCall& operator=(const RollCall&) = delete;

  // The collective that this rank enters: its name, and its number counted on every rank alike.
  void enter(const char* collective);
  // Answers those who ask; cheap enough for every turn of a wait loop.
  void answer();
  // Asks, waits up to `seconds`, and describes who is where in one clause.
  std::string ask(double seconds);

  [[nodiscard]] const std::string& host_of(int rank) const {
    return hosts_[static_cast<std::size_t>(rank)];
  }

 private:
  struct Message {
    std::int64_t is_question = 0;
    std::int64_t sequence = 0;
    std::array<char, 32> collective{};
  };
  [[nodiscard]] Message message(bool question) const;
  void send(int to, bool question);
  bool receive(Message& message, int& from);
  [[nodiscard]] std::string describe(const std::vector<Message>& answers,
                                     const std::vector<bool>& answered) const;

  MPI_Comm channel_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::int64_t sequence_ = 0;
  const char* collective_ = "none";
  std::vector<std::string> hosts_;  // [rank]
  std::deque<Message> sent_;        // kept: a send to a stuck rank may never complete
};

}  // namespace lorascale::comm
