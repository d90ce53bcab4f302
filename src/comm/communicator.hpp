// The one seam between the trainer and other ranks: eight verbs on typed spans. Implementations:
// Local (one rank), Mpi (host memory), Nccl (device memory). Every rank calls the same verbs in the
// same order, from one thread. A verb that fails throws Error(kPeerLost) naming the call, this rank
// and, where known, the culprit; it never hangs longer than the deadline given at construction.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace lorascale::comm {

enum class ReduceOp { kSum, kMin, kMax };
enum class ElementType { kInt8, kUint8, kInt32, kInt64, kUint64, kFloat32, kFloat64 };
enum class MemorySpace { kHost, kDevice };

template <typename T>
struct ElementTypeOf;
template <>
struct ElementTypeOf<std::int8_t> {
  static constexpr auto value = ElementType::kInt8;
};
template <>
struct ElementTypeOf<std::uint8_t> {
  static constexpr auto value = ElementType::kUint8;
};
template <>
struct ElementTypeOf<std::int32_t> {
  static constexpr auto value = ElementType::kInt32;
};
template <>
struct ElementTypeOf<std::int64_t> {
  static constexpr auto value = ElementType::kInt64;
};
template <>
struct ElementTypeOf<std::uint64_t> {
  static constexpr auto value = ElementType::kUint64;
};
template <>
struct ElementTypeOf<float> {
  static constexpr auto value = ElementType::kFloat32;
};
template <>
struct ElementTypeOf<double> {
  static constexpr auto value = ElementType::kFloat64;
};

template <typename T>
concept Element = requires {
  ElementTypeOf<T>::value;
};

std::size_t size_of(ElementType type);

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  // How long a verb waits for the other ranks.
  [[nodiscard]] double deadline_seconds() const { return deadline_seconds_; }
  void set_deadline(double seconds) { deadline_seconds_ = seconds; }
  // Where the spans given to this communicator live.
  [[nodiscard]] virtual MemorySpace memory_space() const = 0;

  // In place; the result is the same bits on every rank. Empty spans are allowed on all ranks
  // together.
  template <Element T, std::size_t N>
  void all_reduce(std::span<T, N> data, ReduceOp op = ReduceOp::kSum) {
    do_all_reduce(data.data(), data.size(), ElementTypeOf<T>::value, op);
  }
  template <Element T, std::size_t N>
  void broadcast(std::span<T, N> data, int root) {
    do_broadcast(data.data(), data.size(), ElementTypeOf<T>::value, root);
  }
  // Rank 0's bytes, of a length that only it knows, on every rank. Bytes: a string or a vector.
  template <typename Bytes>
  requires(sizeof(typename Bytes::value_type) == 1) void broadcast_from_root(Bytes& bytes) {
    std::uint64_t size = bytes.size();
    broadcast(std::span(&size, 1), 0);
    bytes.resize(static_cast<std::size_t>(size));
    broadcast(std::span(reinterpret_cast<std::uint8_t*>(bytes.data()), bytes.size()), 0);
  }
  // all.size() == mine.size() * size(); rank r's part stands at r * mine.size().
  template <Element T>
  void all_gather(std::span<const T> mine, std::span<T> all) {
    LS_ASSERT(all.size() == mine.size() * static_cast<std::size_t>(size_));
    do_all_gather(mine.data(), all.data(), mine.size(), ElementTypeOf<T>::value);
  }
  // Parts may differ in length. Rank 0 gets every rank's part, in rank order; the others get
  // nothing.
  template <Element T>
  std::vector<std::vector<T>> gather_to_root(std::span<const T> mine) {
    std::vector<std::vector<T>> parts;
    for (auto& bytes : do_gather_to_root(std::as_bytes(mine))) {
      const auto* first = reinterpret_cast<const T*>(bytes.data());
      parts.emplace_back(first, first + bytes.size() / sizeof(T));
    }
    return parts;
  }
  virtual void barrier() = 0;

  // Collectives between begin and end travel as one operation. On the host they simply run.
  virtual void group_begin() {}
  virtual void group_end() {}

  // Returns once all verbs so far are done. Those on device memory only enqueue their work and need
  // it before the host looks at a result; those on host memory are done when they return.
  virtual void wait() {}
  // For loops that wait for something else: answers ranks that ask where this one is.
  virtual void attend() {}
  // Who keeps the others waiting, in words.
  virtual std::string missing_ranks() { return "one of the other ranks is gone or stuck"; }

  // Ends the whole job with `code`, without waiting for anybody.
  [[noreturn]] virtual void abort(ExitCode code) = 0;

 protected:
  Communicator(int rank, int size, double deadline_seconds)
      : rank_(rank), size_(size), deadline_seconds_(deadline_seconds) {}

  virtual void do_all_reduce(void* data, std::size_t count, ElementType type, ReduceOp op) = 0;
  virtual void do_broadcast(void* data, std::size_t count, ElementType type, int root) = 0;
  virtual void do_all_gather(const void* mine, void* all, std::size_t count, ElementType type) = 0;
  virtual std::vector<std::vector<std::byte>> do_gather_to_root(
      std::span<const std::byte> mine) = 0;

 private:
  int rank_;
  int size_;
  double deadline_seconds_;
};

}  // namespace lorascale::comm
