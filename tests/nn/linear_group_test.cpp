// Joint linears with LoRA and other deltas against each member written out in fp64, and autograd.
#include "nn/linear_group.hpp"

#include "nn/dropout.hpp"
#include "nn/lora_linear.hpp"
#include "scaling.hpp"
#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

struct Setup {
  LinearGroup group;
  at::Tensor x, dy;
  SampleRows rows;
  std::vector<std::size_t> members;  // that are adapted, and how
  std::vector<LoraFactors> branches;
};

// Three members of one input, two of them adapted; 9 tokens of two samples.
Setup make_setup(at::ScalarType type, bool bias, bool train_weights, double dropout) {
  Setup s;
  auto& g = s.group;
  g.members = {{"q", 6, 0}, {"k", 4, 6}, {"v", 5, 10}};
  g.weight = noise({15, 7}, 1).to(type);
  if (bias) {
    g.bias = noise({15}, 2).to(type);
  }
  if (train_weights) {
    g.weight_grad = noise({15, 7}, 3);
    if (bias) {
      g.bias_grad = noise({15}, 4);
    }
  }
  for (const std::size_t member : {std::size_t{0}, std::size_t{2}}) {
    LoraFactors branch;
    const std::int64_t rank = member == 0 ? 2 : 3;
    branch.scale = member == 0 ? 2.0 : 0.75;
    branch.dropout = branch.rank_dropout = branch.module_dropout = dropout;
    branch.draw = 30 + static_cast<std::uint32_t>(member);
    branch.a = noise({rank, 7}, 5 + member).to(type);
    branch.b = noise({g.members[member].out, rank}, 15 + member).to(type);
    branch.grad_a = noise({rank, 7}, 25 + member);
    branch.grad_b = noise({g.members[member].out, rank}, 35 + member);
    g.sites()[member].attach(std::make_unique<LoraLinear>(branch));
    s.members.push_back(member);
    s.branches.push_back(branch);
  }
  s.x = noise({9, 7}, 50).to(type);
  s.dy = noise({9, 15}, 51).to(type);
  s.rows = {{3, 1}, {12, 4}, {0, 4, 9}};
  return s;
}

struct Reference {
  at::Tensor y;
  std::vector<at::Tensor> inputs;  // x, weight, bias, then a and b of each branch
};

Reference formula(const Setup& s, bool dropped) {
  const auto& g = s.group;
  Reference r;
  const auto follow = [&](const at::Tensor& t) { return r.inputs.emplace_back(leaf64(t)); };
  const auto x = follow(s.x);
  const auto weight = follow(g.weight);
  const auto bias = follow(g.bias.defined() ? g.bias : at::zeros({15}));
  std::vector<at::Tensor> outputs;
  for (const auto& member : g.members) {
    outputs.push_back(at::matmul(x, weight.narrow(0, member.first, member.out).t()) +
                      bias.narrow(0, member.first, member.out));
  }
  for (std::size_t i = 0; i < s.branches.size(); ++i) {
    const auto& branch = s.branches[i];
    const auto a = follow(branch.a);
    const auto b = follow(branch.b);
    const double p = branch.dropout;
    const auto input = dropped ? x * dropout_scale(s.rows, branch.draw, p, 7, at::kDouble) : x;
    auto low_rank = at::matmul(input, a.t());
    if (dropped) {
      low_rank =
          low_rank * rank_dropout_scale(s.rows, branch.draw, p, p, branch.a.size(0), at::kDouble);
    }
    outputs[s.members[i]] = outputs[s.members[i]] + branch.scale * at::matmul(low_rank, b.t());
  }
  r.y = at::cat(outputs, 1);
  return r;
}

void check(Setup s, const SampleRows* rows, bool dropped, double tolerance) {
  auto& g = s.group;
  const auto reference = formula(s, dropped);
  const auto expected = autograd_of(reference.y, s.dy, reference.inputs);
  const auto copy = [](const at::Tensor& t) { return t.defined() ? t.clone() : t; };
  const auto weight_before = copy(g.weight_grad), bias_before = copy(g.bias_grad);
  std::vector<at::Tensor> branch_before;
  for (const auto& branch : s.branches) {
    branch_before.push_back(branch.grad_a.clone());
    branch_before.push_back(branch.grad_b.clone());
  }
  DeltasSaved saved;
  const auto y = g.forward(s.x, rows, &saved);
  expect_close(y, reference.y, tolerance, "y");
  EXPECT_TRUE(same_bits(g.forward(s.x, rows, nullptr), y));
  const auto dx = g.backward(s.dy, s.x, rows, saved, /*need_dx=*/true);
  expect_close(dx, expected[0], tolerance, "dx");
  if (g.weight_grad.defined()) {
    expect_close(g.weight_grad, weight_before + expected[1], tolerance, "weight");
  }
  if (g.bias_grad.defined()) {
    expect_close(g.bias_grad, bias_before + expected[2], tolerance, "bias");
  }
  for (std::size_t i = 0; i < s.branches.size(); ++i) {
    expect_close(s.branches[i].grad_a, branch_before[2 * i] + expected[3 + 2 * i], tolerance, "A");
    expect_close(s.branches[i].grad_b, branch_before[2 * i + 1] + expected[4 + 2 * i], tolerance,
                 "B");
  }
}

TEST(LinearGroupTest, ForwardAndBackward) {
  for (const bool bias : {false, true}) {
    for (const bool weights : {false, true}) {
      check(make_setup(at::kFloat, bias, weights, 0.0), nullptr, false, 1e-5);
    }
  }
}

TEST(LinearGroupTest, DropoutIsOnTheInputOfTheAdapterAlone) {
  auto s = make_setup(at::kFloat, true, false, 0.4);
  const auto rows = s.rows;
  check(std::move(s), &rows, true, 1e-5);
}

TEST(LinearGroupTest, NoDropoutOutsideTraining) {
  check(make_setup(at::kFloat, false, false, 0.4), nullptr, false, 1e-5);
}

TEST(LinearGroupTest, SixteenBitAddsIntoFp32Gradients) {
  auto s = make_setup(at::kBFloat16, true, true, 0.4);
  const auto rows = s.rows;
  check(std::move(s), &rows, true, 5e-2);
}

TEST(LinearGroupTest, NoInputGradientWhereNoneIsWanted) {
  auto s = make_setup(at::kFloat, false, false, 0.0);
  auto other = make_setup(at::kFloat, false, false, 0.0);
  DeltasSaved saved;
  s.group.forward(s.x, nullptr, &saved);
  EXPECT_FALSE(s.group.backward(s.dy, s.x, nullptr, saved, false).defined());
  other.group.backward(other.dy, other.x, nullptr, saved, true);
  EXPECT_TRUE(same_bits(s.branches[0].grad_a, other.branches[0].grad_a));
  EXPECT_TRUE(same_bits(s.branches[1].grad_b, other.branches[1].grad_b));
}

TEST(LinearGroupTest, DeltasMayScaleWhatTheyAreGiven) {
  auto s = make_setup(at::kFloat, false, true, 0.0);
  s.group.deltas.clear();
  const auto l = noise({4}, 60);
  const auto grad = at::zeros({4});
  s.group.sites()[1].attach(std::make_unique<Scaling>(l, grad));
  const auto x = leaf64(s.x), weight = leaf64(s.group.weight), scale = leaf64(l);
  const auto base = at::matmul(x, weight.t());
  const auto expected_y =
      at::cat({base.narrow(1, 0, 6), base.narrow(1, 6, 4) * (scale + 1), base.narrow(1, 10, 5)}, 1);
  const auto expected = autograd_of(expected_y, s.dy, {x, weight, scale});
  const auto weight_before = s.group.weight_grad.clone();
  DeltasSaved saved;
  expect_close(s.group.forward(s.x, nullptr, &saved), expected_y, 1e-5, "y");
  expect_close(s.group.backward(s.dy, s.x, nullptr, saved, true), expected[0], 1e-5, "dx");
  expect_close(s.group.weight_grad, weight_before + expected[1], 1e-5, "weight");
  expect_close(grad, expected[2], 1e-5, "l");
  EXPECT_EQ(s.group.deltas.kept_width(), 4);
}

TEST(LinearGroupTest, KnowsWhetherItTrains) {
  auto s = make_setup(at::kFloat, false, false, 0.0);
  EXPECT_TRUE(s.group.trains());
  s.group.deltas.clear();
  EXPECT_FALSE(s.group.trains());
  s.group.weight_grad = at::zeros({15, 7});
  EXPECT_TRUE(s.group.trains());
  EXPECT_EQ(s.group.in_features(), 7);
  EXPECT_EQ(s.group.out_features(), 15);
  EXPECT_TRUE(s.group.sites()[1].weight.equal(s.group.weight.narrow(0, 6, 4)));
}

}  // namespace
}  // namespace lorascale::nn
