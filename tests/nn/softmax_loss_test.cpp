// The loss of classifiers against torch's cross_entropy in fp64, and autograd.
#include "nn/softmax_loss.hpp"

#include "precision.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

const std::vector<std::int32_t> kLabels = {3, -1, 0, 6, -1, 3, 2};

at::Tensor torch_loss(const at::Tensor& logits, const std::vector<std::int32_t>& labels,
                      double smoothing) {
  const auto index = at::tensor(
      at::IntArrayRef(std::vector<std::int64_t>(labels.begin(), labels.end())), at::kLong);
  return at::cross_entropy_loss(logits, index, {}, at::Reduction::Sum, /*ignore_index=*/-1,
                                smoothing);
}

TEST(SoftmaxLossTest, LossAndGradientOfTheSum) {
  for (const double smoothing : {0.0, 0.1, 0.9}) {
    for (const auto& p : {Precision{at::kDouble, 1e-6}, kSingle, kSixteenBit}) {
      const auto logits = noise({7, 7}, 1, 4.0).to(p.type);
      const auto logits64 = leaf64(logits);
      const auto expected = torch_loss(logits64, kLabels, smoothing);
      auto gradient = logits.clone();
      const auto loss = softmax_loss_backward(gradient, kLabels, smoothing);
      EXPECT_EQ(loss.sum.scalar_type(), at::kDouble);
      EXPECT_EQ(loss.sum.dim(), 0);
      expect_close(loss.sum, expected, p.tolerance);
      EXPECT_EQ(gradient.scalar_type(), p.type);
      expect_close(gradient, autograd_of(expected, at::ones({}), {logits64})[0], p.tolerance);
      EXPECT_EQ(gradient[1].abs().max().item<double>(), 0);  // no target, no gradient
      expect_close(softmax_loss(logits, kLabels).sum, torch_loss(logits64, kLabels, 0),
                   p.tolerance);
    }
  }
}

TEST(SoftmaxLossTest, CountsWhatIsRight) {
  auto logits = at::zeros({6, 4});
  logits[0][2] = 1.0;                                            // right
  logits[1][1] = 1.0;                                            // wrong
  logits[2][1] = logits[2][3] = 2.0;                             // equals: the first counts, right
  logits[3][1] = logits[3][3] = 2.0;                             // wrong
  logits[4][0] = 1.0;                                            // no target
  const std::vector<std::int32_t> labels = {2, 3, 1, 3, -1, 0};  // the last: all equal, right
  EXPECT_EQ(softmax_loss(logits, labels).correct.item<double>(), 3);
  auto gradient = logits.clone();
  const auto loss = softmax_loss_backward(gradient, labels, 0.2);
  EXPECT_EQ(loss.correct.scalar_type(), at::kDouble);
  EXPECT_EQ(loss.correct.item<double>(), 3);
}

TEST(SoftmaxLossTest, WithoutTargets) {
  auto logits = noise({3, 4}, 1);
  const std::vector<std::int32_t> none = {-1, -1, -1};
  EXPECT_EQ(softmax_loss(logits, none).sum.item<double>(), 0);
  EXPECT_EQ(softmax_loss(logits, none).correct.item<double>(), 0);
  EXPECT_EQ(softmax_loss_backward(logits, none, 0.1).sum.item<double>(), 0);
  EXPECT_TRUE(same_bits(logits, at::zeros({3, 4})));
}

}  // namespace
}  // namespace lorascale::nn
