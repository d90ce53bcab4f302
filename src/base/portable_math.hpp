// cos, log, exp and power that give the same bits on every machine. The C library picks another
// variant (with or without fused multiply-add) for each processor, and their last bits differ: on a
// mixed cluster two ranks would disagree about a learning rate. Built from IEEE + - * / alone;
// relative error below 4e-15.
#pragma once

namespace lorascale {

// cos(pi x) for x in [0, 1]; exact at 0, 1/2 and 1.
double cos_pi(double x);

double natural_log(double x);  // x > 0
double exponential(double x);
double power(double x, double exponent);  // x > 0; exact for exponents 0, 1/2 and 1

}  // namespace lorascale
