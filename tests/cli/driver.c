/* A GPU driver in four calls, for machines that have none: what it answers is in the environment. */
#include <stdlib.h>

static int number(const char* name) {
  const char* text = getenv(name);
  return text != NULL ? atoi(text) : 0;
}

int cuInit(unsigned flags) {
  (void)flags;
  return number("DRIVER_RESULT");
}
int cuDriverGetVersion(int* version) {
  *version = number("DRIVER_VERSION");
  return 0;
}
int cuDeviceGetCount(int* count) {
  *count = number("DRIVER_GPUS");
  return 0;
}
int cuGetErrorName(int result, const char** name) {
  *name = result == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_SUCCESS";
  return 0;
}
