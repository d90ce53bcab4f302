// Stands in for libcupti: a test makes the driver's calls itself.
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int site;
  const char *function;
} CallbackData;
typedef void (*Callback)(void *, int, uint32_t, const void *);

static Callback callback;
static int enabled;

int cuptiSubscribe(void **subscriber, Callback call, void *user) {
  (void)user;
  *subscriber = &callback;
  callback = call;
  return 0;
}

int cuptiEnableDomain(uint32_t enable, void *subscriber, int domain) {
  enabled = enable && subscriber == &callback ? domain : 0;
  return 0;
}

void driver_call(const char *function, uint32_t id, int site, int domain) {
  const CallbackData data = {site, function};
  if (callback != NULL && enabled != 0) callback(NULL, domain, id, &data);
}
