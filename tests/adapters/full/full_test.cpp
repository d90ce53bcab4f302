#include "adapters/full/full.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "support/tensors.hpp"

namespace lorascale::adapters {
namespace {

using lorascale::test::noise;
using lorascale::test::same_bits;

// A norm, a joint matrix of two parts, a bias of two parts, and a convolution: matrices and vectors
// alternate, so that the order of the slots is not that of the flat vector.
struct Weights {
  at::Tensor norm, joint, bias, kernel;
  at::Tensor norm_grad, joint_grad, bias_grad, kernel_grad;

  explicit Weights(at::ScalarType type)
      : norm(noise({4}, 1).to(type)),
        joint(noise({5, 3}, 2).to(type)),
        bias(noise({5}, 3).to(type)),
        kernel(noise({2, 3, 2, 2}, 4).to(type)) {}
  std::vector<nn::ParameterSlot> slots() {
    return {{{{"norm", {4}}}, &norm, &norm_grad},
            {{{"q", {2, 3}}, {"v", {3, 3}}}, &joint, &joint_grad},
            {{{"q.bias", {2}}, {"v.bias", {3}}}, &bias, &bias_grad},
            {{{"conv", {2, 3, 2, 2}}}, &kernel, &kernel_grad}};
  }
};

at::Tensor named(const TrainableParameters& parameters, const at::Tensor& flat,
                 const std::string& name) {
  for (const auto& entry : parameters.entries()) {
    if (entry.name == name) {
      return TrainableParameters::view(flat, entry);
    }
  }
  ADD_FAILURE() << "no entry " << name;
  return {};
}

// Weights of the checkpoint's keys lie in the flat vector, and gradients reach the same places.
void expect_in_place(const TrainableParameters& parameters, const at::Tensor& flat,
                     const at::Tensor& norm, const at::Tensor& joint, const at::Tensor& bias,
                     const at::Tensor& kernel) {
  EXPECT_TRUE(same_bits(named(parameters, flat, "norm"), norm));
  EXPECT_TRUE(same_bits(named(parameters, flat, "q"), joint.narrow(0, 0, 2)));
  EXPECT_TRUE(same_bits(named(parameters, flat, "v"), joint.narrow(0, 2, 3)));
  EXPECT_TRUE(same_bits(named(parameters, flat, "q.bias"), bias.narrow(0, 0, 2)));
  EXPECT_TRUE(same_bits(named(parameters, flat, "v.bias"), bias.narrow(0, 2, 3)));
  EXPECT_TRUE(same_bits(named(parameters, flat, "conv"), kernel));
}

TEST(AttachFull, PutsMatricesBeforeVectorsThatDoNotDecay) {
  Weights weights(at::kFloat);
  const auto parameters = attach_full(weights.slots());
  ASSERT_EQ(parameters->groups().size(), 2U);
  const auto& matrices = parameters->groups()[0];
  const auto& vectors = parameters->groups()[1];
  EXPECT_EQ(matrices.name, "matrix");
  EXPECT_EQ(vectors.name, "vector");
  EXPECT_TRUE(matrices.decays && !matrices.vectors && !matrices.starts_at_zero);
  EXPECT_TRUE(!vectors.decays && vectors.vectors && !vectors.starts_at_zero);
  EXPECT_EQ(matrices.begin, 0);
  EXPECT_EQ(matrices.end, 15 + 24);
  EXPECT_EQ(vectors.begin, 39);
  EXPECT_EQ(vectors.end, 39 + 9);
  std::vector<std::string> names;
  for (const auto& entry : parameters->entries()) {
    names.push_back(entry.name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"q", "v", "conv", "norm", "q.bias", "v.bias"}));
}

TEST(AttachFull, MakesFp32WeightsViewsOfTheMaster) {
  Weights weights(at::kFloat);
  const Weights before(at::kFloat);
  const auto parameters = attach_full(weights.slots());
  const at::Tensor master = parameters->master();
  expect_in_place(*parameters, master, before.norm, before.joint, before.bias, before.kernel);
  at::Tensor(master).copy_(noise({48}, 9));  // an update
  parameters->refresh();
  expect_in_place(*parameters, master, weights.norm, weights.joint, weights.bias, weights.kernel);
}

TEST(AttachFull, RoundsThe16BitWeightsOfAModel) {
  Weights weights(at::kBFloat16);
  const Weights before(at::kBFloat16);
  const void* place = weights.joint.data_ptr();
  const auto parameters = attach_full(weights.slots());
  const at::Tensor master = parameters->master();
  ASSERT_EQ(master.scalar_type(), at::kFloat);
  expect_in_place(*parameters, master, before.norm.to(at::kFloat), before.joint.to(at::kFloat),
                  before.bias.to(at::kFloat), before.kernel.to(at::kFloat));
  at::Tensor(master).copy_(noise({48}, 9));
  EXPECT_TRUE(same_bits(weights.joint, before.joint)) << "before refresh()";
  parameters->refresh();
  EXPECT_EQ(weights.joint.data_ptr(), place) << "the model's own tensor";
  expect_in_place(*parameters, master.to(at::kBFloat16), weights.norm, weights.joint, weights.bias,
                  weights.kernel);
}

TEST(AttachFull, LetsGradientsLandWhereTheWeightsLie) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    Weights weights(type);
    const auto parameters = attach_full(weights.slots());
    for (const auto& [grad, seed] : {std::pair{&weights.norm_grad, 11},
                                     {&weights.joint_grad, 12},
                                     {&weights.bias_grad, 13},
                                     {&weights.kernel_grad, 14}}) {
      EXPECT_EQ(grad->scalar_type(), at::kFloat);
      grad->add_(noise(grad->sizes(), static_cast<std::uint64_t>(seed)));
    }
    expect_in_place(*parameters, parameters->gradient(), noise({4}, 11), noise({5, 3}, 12),
                    noise({5}, 13), noise({2, 3, 2, 2}, 14));
  }
}

}  // namespace
}  // namespace lorascale::adapters
