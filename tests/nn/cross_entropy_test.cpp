// The chunked head against linear + log-softmax in fp64 as a whole, and autograd.
#include "nn/cross_entropy.hpp"

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

std::vector<std::int32_t> some_labels(std::int64_t rows, std::int64_t vocabulary) {
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; i < rows; ++i) {
    labels.push_back(static_cast<std::int32_t>((37 * i + vocabulary - 1) % vocabulary));
  }
  return labels;
}

at::Tensor formula(const at::Tensor& hidden, const at::Tensor& weight,
                   const std::vector<std::int32_t>& labels) {
  const auto index =
      at::tensor(at::IntArrayRef(std::vector<std::int64_t>(labels.begin(), labels.end())),
                 at::kLong)
          .unsqueeze(1);
  return -at::matmul(hidden, weight.t()).log_softmax(1).gather(1, index).sum();
}

void check(std::int64_t rows, std::int64_t d, std::int64_t vocabulary, double tolerance) {
  SCOPED_TRACE(std::to_string(rows) + " rows, vocabulary " + std::to_string(vocabulary));
  const auto hidden = noise({rows, d}, 1, 2.0);
  const auto weight = noise({vocabulary, d}, 2);
  const auto labels = some_labels(rows, vocabulary);
  const auto hidden64 = leaf64(hidden), weight64 = leaf64(weight);
  const auto expected = formula(hidden64, weight64, labels);
  const auto gradients64 = autograd_of(expected, at::ones({}), {hidden64, weight64});

  HeadGradients gradients;
  gradients.hidden = at::full({rows, d}, std::nan(""), at::kFloat);  // is written, not read
  gradients.weight_grad = noise({vocabulary, d}, 3);                 // is added to
  const auto before = gradients.weight_grad.clone();
  const auto loss = head_cross_entropy(hidden, weight, labels, &gradients);
  EXPECT_EQ(loss.scalar_type(), at::kDouble);
  expect_close(loss, expected, tolerance, "loss");
  expect_close(head_cross_entropy(hidden, weight, labels, nullptr), expected, tolerance);
  expect_close(gradients.hidden, gradients64[0], tolerance, "hidden");
  expect_close(gradients.weight_grad, before + gradients64[1], tolerance, "weight");

  HeadGradients frozen;
  frozen.hidden = at::empty({rows, d});
  head_cross_entropy(hidden, weight, labels, &frozen);
  EXPECT_TRUE(same_bits(frozen.hidden, gradients.hidden));
}

TEST(HeadCrossEntropyTest, LossAndGradients) {
  check(1, 1, 1, 1e-5);
  check(1, 3, 2, 1e-5);
  check(7, 5, 17, 1e-5);
  check(70, 16, 33, 1e-5);
}

// 2^23 logits are held at a time, at least 64 rows: this takes three chunks, the last one short.
// Torch's own fp32 products over so many terms are off by as much.
TEST(HeadCrossEntropyTest, SeveralChunks) {
  check(130, 16, (1 << 17) + 3, 5e-5);
}

TEST(HeadCrossEntropyTest, ChunksAreAboutAsLargeAndNeverHeldWhole) {
  const auto rows_at_once = [](std::int64_t rows, std::int64_t vocabulary, at::ScalarType type) {
    return head_rows_at_once(rows, at::empty({vocabulary, 1}, type));
  };
  EXPECT_EQ(rows_at_once(0, 100, at::kFloat), 0);
  EXPECT_EQ(rows_at_once(1000, 100, at::kFloat), 1000);  // 8 MiB are not worth a second product
  EXPECT_EQ(rows_at_once(2048, 32000, at::kFloat), 256);
  EXPECT_EQ(rows_at_once(300, 32000, at::kFloat), 150);
  EXPECT_EQ(rows_at_once(1024, 49152, at::kFloat), 147);  // 170 would be 32 MiB
  EXPECT_EQ(rows_at_once(1024, 49152, at::kBFloat16), 256);
  EXPECT_EQ(rows_at_once(128, 1 << 20, at::kFloat), 64);
}

TEST(HeadCrossEntropyTest, NoTargetsGiveZero) {
  HeadGradients gradients;
  gradients.hidden = at::empty({0, 4});
  gradients.weight_grad = at::ones({5, 4});
  const auto loss = head_cross_entropy(at::empty({0, 4}), noise({5, 4}, 1), {}, &gradients);
  EXPECT_EQ(loss.item<double>(), 0.0);
  EXPECT_TRUE(gradients.weight_grad.equal(at::ones({5, 4})));
}

// exp of such logits overflows unless the largest is taken off first.
TEST(HeadCrossEntropyTest, LargeLogits) {
  const auto hidden = at::eye(3) * 3e4;
  const auto weight = at::eye(3);
  HeadGradients gradients;
  gradients.hidden = at::empty({3, 3});
  const std::vector<std::int32_t> right = {0, 1, 2}, wrong = {1, 2, 0};
  EXPECT_EQ(head_cross_entropy(hidden, weight, right, &gradients).item<double>(), 0.0);
  EXPECT_EQ(gradients.hidden.abs().max().item<float>(), 0.0F);
  EXPECT_EQ(head_cross_entropy(hidden, weight, wrong, &gradients).item<double>(), 9e4);
  EXPECT_TRUE(gradients.hidden.isfinite().all().item<bool>());
}

// torch.nn.functional.cross_entropy itself, in fp64.
at::Tensor torch_loss(const at::Tensor& hidden, const at::Tensor& weight,
                      const std::vector<std::int32_t>& labels, double smoothing) {
  const auto index = at::tensor(
      at::IntArrayRef(std::vector<std::int64_t>(labels.begin(), labels.end())), at::kLong);
  return at::cross_entropy_loss(at::matmul(hidden, weight.t()), index, {}, at::Reduction::Sum, -100,
                                smoothing);
}

// In `dtype` fp32 the kernels of the CPU are used, in fp64 those of every other device, which
// compute the loss in fp32.
void check_smoothed(at::ScalarType dtype, std::int64_t rows, std::int64_t vocabulary,
                    double smoothing, double tolerance, double of_gradients) {
  SCOPED_TRACE(std::to_string(rows) + " rows, vocabulary " + std::to_string(vocabulary) + ", " +
               std::to_string(smoothing));
  const auto hidden = noise({rows, 6}, 1, 2.0).to(dtype);
  const auto weight = noise({vocabulary, 6}, 2).to(dtype);
  const auto labels = some_labels(rows, vocabulary);
  const auto hidden64 = leaf64(hidden), weight64 = leaf64(weight);
  const auto expected = torch_loss(hidden64, weight64, labels, smoothing);
  const auto gradients64 = autograd_of(expected, at::ones({}), {hidden64, weight64});
  HeadGradients gradients;
  gradients.hidden = at::empty_like(hidden);
  gradients.weight_grad = at::zeros({vocabulary, 6}, dtype);
  const auto loss = head_cross_entropy(hidden, weight, labels, &gradients, smoothing);
  expect_close(loss, expected, tolerance, "loss");
  expect_close(head_cross_entropy(hidden, weight, labels, nullptr, smoothing), loss, 1e-12);
  expect_close(gradients.hidden, gradients64[0], of_gradients, "hidden");
  expect_close(gradients.weight_grad, gradients64[1], of_gradients, "weight");
}

TEST(HeadCrossEntropyTest, LabelSmoothingIsTorchs) {
  for (const double smoothing : {0.0, 0.1, 0.5, 0.99}) {
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      check_smoothed(dtype, 1, 1, smoothing, 1e-6, 1e-6);
      check_smoothed(dtype, 1, 2, smoothing, 1e-6, 1e-6);
      check_smoothed(dtype, 9, 33, smoothing, 1e-6, 1e-6);
      check_smoothed(dtype, 7, 1031, smoothing, 1e-6, 5e-6);
    }
  }
}

// A mean over a vocabulary of modern size, and several chunks. Torch's own fp32 products over so
// many terms bound the gradients, as above.
TEST(HeadCrossEntropyTest, LabelSmoothingOverALargeVocabulary) {
  check_smoothed(at::kFloat, 130, (1 << 17) + 3, 0.1, 1e-6, 5e-5);
}

TEST(HeadCrossEntropyTest, LabelSmoothingByFiniteDifferences) {
  const auto hidden = noise({3, 4}, 1, 2.0);
  const auto weight = noise({5, 4}, 2);
  const auto labels = some_labels(3, 5);
  HeadGradients gradients;
  gradients.hidden = at::empty({3, 4});
  head_cross_entropy(hidden, weight, labels, &gradients, 0.3);
  constexpr float kStep = 1e-2F;
  for (std::int64_t row = 0; row < 3; ++row) {
    for (std::int64_t i = 0; i < 4; ++i) {
      const auto moved = [&](float by) {
        auto other = hidden.clone();
        other[row][i] += by;
        return head_cross_entropy(other, weight, labels, nullptr, 0.3).item<double>();
      };
      const double slope = (moved(kStep) - moved(-kStep)) / (2 * double{kStep});
      EXPECT_NEAR(gradients.hidden[row][i].item<float>(), slope, 1e-4) << row << " " << i;
    }
  }
}

// Logits that are all alike have the loss log C under any smoothing, and the least loss there is
// under smoothing a is the entropy of the smoothed target.
TEST(HeadCrossEntropyTest, LabelSmoothingInClosedForm) {
  const std::vector<std::int32_t> labels = {2};
  EXPECT_NEAR(
      head_cross_entropy(at::zeros({1, 4}), at::eye(4), labels, nullptr, 0.3).item<double>(),
      std::log(4.0), 1e-6);
  const double rest = 0.3 / 4, most = 0.7 + rest;
  auto best = at::full({1, 4}, std::log(rest), at::kFloat);
  best[0][2] = std::log(most);
  HeadGradients gradients;
  gradients.hidden = at::empty({1, 4});
  EXPECT_NEAR(head_cross_entropy(best, at::eye(4), labels, &gradients, 0.3).item<double>(),
              -most * std::log(most) - 3 * rest * std::log(rest), 1e-6);
  EXPECT_NEAR(gradients.hidden.abs().max().item<float>(), 0, 1e-6);
}

TEST(HeadCrossEntropyTest, SixteenBit) {
  const auto hidden = noise({20, 12}, 1).to(at::kBFloat16);
  const auto weight = noise({33, 12}, 2).to(at::kBFloat16);
  const auto labels = some_labels(20, 33);
  const auto hidden64 = leaf64(hidden), weight64 = leaf64(weight);
  const auto expected = formula(hidden64, weight64, labels);
  const auto gradients64 = autograd_of(expected, at::ones({}), {hidden64, weight64});
  HeadGradients gradients;
  gradients.hidden = at::empty_like(hidden);
  gradients.weight_grad = at::zeros({33, 12}, at::kFloat);
  const auto loss = head_cross_entropy(hidden, weight, labels, &gradients);
  EXPECT_NEAR(loss.item<double>() / expected.item<double>(), 1.0, 1e-2);
  expect_close(gradients.hidden, gradients64[0], 3e-2);
  expect_close(gradients.weight_grad, gradients64[1], 3e-2);
}

}  // namespace
}  // namespace lorascale::nn
