// Fused kernels for the CPU, in fp32, one row of a matrix at a time, so that a row's result never
// depends on which rows stand beside it. The callers (rms_norm, rope, swiglu, cross_entropy) spread
// rows over threads.
#pragma once

#include <cstdint>

namespace lorascale::nn::cpu {

// bf16 to fp32, which has all its numbers, and back, to nearest even. NaN stays NaN.
void widen_row(const std::uint16_t* x, float* y, std::int64_t n);
void round_row(const float* x, std::uint16_t* y, std::int64_t n);

// 1 / sqrt(mean(x^2) + eps)
float rms_norm_rstd(const float* x, std::int64_t d, float eps);
// y = w * x * rstd
void rms_norm_apply_row(const float* x, const float* w, float rstd, float* y, std::int64_t d);
// The same with x * rstd rounded to bf16 first, as models that compute in bf16 have it.
void rms_norm_apply_bf16_row(const float* x, const float* w, float rstd, float* y, std::int64_t d);
// dx += gradient of rms_norm; where dw is not null, dw += dy * x * rstd.
void rms_norm_backward_row(const float* dy, const float* x, const float* w, float rstd, float* dx,
                           float* dw, std::int64_t d);

// Rotates one head in place by angle (half-split layout): cos, sin are [d / 2]; sign -1 undoes it.
void rope_row(float* x, const float* cos, const float* sin, float sign, std::int64_t d);

// y = silu(gate) * up; gate_up holds [gate | up], each of width d.
void swiglu_row(const float* gate_up, float* y, std::int64_t d);
// Replaces [gate | up] by their gradients.
void swiglu_backward_row(const float* dy, float* gate_up, std::int64_t d);

// The loss -sum_c y[c] log softmax(logits)[c] against y = (1 - a) onehot(label) + a / vocabulary,
// a = smoothing. Replaces logits by softmax(logits) - y.
double cross_entropy_backward_row(float* logits, std::int64_t label, std::int64_t vocabulary,
                                  double smoothing = 0);
// The loss alone.
double cross_entropy_row(const float* logits, std::int64_t label, std::int64_t vocabulary,
                         double smoothing = 0);

void scale_row(float* x, float factor, std::int64_t n);
float dot_row(const float* x, const float* y, std::int64_t n);

// Replaces x by exp(scale x - max scale x), scale > 0; softmax(scale x) is that times `factor`, and
// exp(scale x - log_sum).
struct SoftmaxSum {
  float log_sum, factor;
};
SoftmaxSum softmax_row(float* x, float scale, std::int64_t n);
// Replaces x by y = softmax(scale x), and dy by the gradient of scale x, where mean = sum_j y_j
// dy_j.
void softmax_backward_row(float* x, float* dy, float scale, float log_sum, float mean,
                          std::int64_t n);

}  // namespace lorascale::nn::cpu
