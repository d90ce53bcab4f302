// Fused fp32 kernels for the CPU, one row of a matrix at a time, so that a row's result never
// depends on which rows stand beside it. The callers (rms_norm, rope, swiglu, cross_entropy) spread
// rows over threads.
#pragma once

#include <cstdint>

namespace lorascale::nn::cpu {

// y = w * x * rstd; returns rstd = 1 / sqrt(mean(x^2) + eps).
float rms_norm_row(const float* x, const float* w, float* y, std::int64_t d, float eps);
// y = w * x * rstd with a known rstd.
void rms_norm_apply_row(const float* x, const float* w, float rstd, float* y, std::int64_t d);
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

}  // namespace lorascale::nn::cpu
