// Counts what a process asks of the CUDA driver: kernel launches, waits, copies, managed memory. The driver loads this
// library where CUDA_INJECTION64_PATH names it; CUPTI calls it back at each call, libraries that link CUDA statically
// included. The counts are in the file LORASCALE_COUNT_FILE, mapped, so that they are there whatever ends the process.
//
//   cc -O2 -fPIC -shared -o libcount.so count.c -ldl
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// The part of CUPTI's interface that is used (cupti_callbacks.h); the library itself is taken at run time.
enum { kDriverApi = 1, kEnter = 0 };
typedef struct {
  int site;
  const char *function;
} CallbackData;  // its first two members
typedef void (*Callback)(void *, int, uint32_t, const void *);

enum Kind { kUnknown, kOther, kLaunch, kGraph, kWait, kCopyWait, kManaged, kAllocate, kKinds };
static uint64_t *counts;  // by Kind; the first is 1 once CUPTI reports
static unsigned char kinds[4096];  // of a callback's number; written once with the same value by whoever is first

static enum Kind kind_of(const char *name) {
  if (!strncmp(name, "cuGraphLaunch", 13)) return kGraph;
  if (!strncmp(name, "cuLaunch", 8)) return strstr(name, "HostFunc") ? kOther : kLaunch;
  if (strstr(name, "Synchronize")) return kWait;
  if (!strncmp(name, "cuMemAllocManaged", 17)) return kManaged;
  if (!strncmp(name, "cuMemAlloc", 10) || !strncmp(name, "cuMemCreate", 11)) return kAllocate;
  // Copies that return when they are done.
  if (!strncmp(name, "cuMemcpy", 8) && !strstr(name, "Async") && !strstr(name, "Batch")) return kCopyWait;
  return kOther;
}

static void on_call(void *user, int domain, uint32_t id, const void *data) {
  (void)user;
  const CallbackData *call = data;
  if (domain != kDriverApi || call->site != kEnter) return;
  enum Kind kind = id < sizeof kinds ? kinds[id] : kUnknown;
  if (kind == kUnknown) {
    kind = kind_of(call->function);
    if (id < sizeof kinds) kinds[id] = kind;
  }
  __atomic_fetch_add(&counts[kind], 1, __ATOMIC_RELAXED);
}

static int complain(const char *what) {
  fprintf(stderr, "libcount: %s; nothing is counted\n", what);
  return 1;  // the driver goes on without us
}

int InitializeInjection(void) {
  const char *path = getenv("LORASCALE_COUNT_FILE"), *library = getenv("LORASCALE_CUPTI");
  if (path == NULL) return complain("LORASCALE_COUNT_FILE is not set");
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, 4096) != 0) return complain("the count file cannot be written");
  void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return complain("the count file cannot be mapped");
  counts = memory;
  void *cupti = dlopen(library != NULL ? library : "libcupti.so.13", RTLD_NOW);
  if (cupti == NULL) return complain(dlerror());
  int (*subscribe)(void **, Callback, void *) = (int (*)(void **, Callback, void *))dlsym(cupti, "cuptiSubscribe");
  int (*enable)(uint32_t, void *, int) = (int (*)(uint32_t, void *, int))dlsym(cupti, "cuptiEnableDomain");
  if (subscribe == NULL || enable == NULL) return complain("this libcupti has no callbacks");
  void *subscriber = NULL;
  if (subscribe(&subscriber, on_call, NULL) != 0 || enable(1, subscriber, kDriverApi) != 0)
    return complain("CUPTI refuses (is another profiler at work?)");
  counts[0] = 1;
  return 1;
}
