// main() of the tests that run under mpirun. All ranks run the same tests in the same order; when
// one rank fails, the job ends at once instead of leaving the others in a collective that nobody
// joins.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>

namespace {

class AbortOnFailure : public testing::EmptyTestEventListener {
  // Rank 0's printer has said its own.
  void OnTestPartResult(const testing::TestPartResult& part) override {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank != 0 && part.failed()) {
      std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank, part.file_name() ? part.file_name() : "",
                   part.line_number(), part.message());
    }
  }
  void OnTestEnd(const testing::TestInfo& info) override {
    if (info.result()->Failed()) {
      std::fflush(nullptr);
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  testing::InitGoogleTest(&argc, argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (rank != 0) {
    delete listeners.Release(listeners.default_result_printer());
  }
  listeners.Append(new AbortOnFailure);
  const int result = RUN_ALL_TESTS();
  MPI_Finalize();
  return result;
}
