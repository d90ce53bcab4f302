// What all that calls HDF5 shares: its lock, its complaints, handles that close themselves.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>

namespace lorascale::io {

// Guards the library, which is itself process-wide and not re-entrant.
inline std::recursive_mutex& hdf5_lock() {
  static std::recursive_mutex mutex;
  return mutex;
}
using Hdf5Lock = std::lock_guard<std::recursive_mutex>;

// The innermost complaint of the library, which it would otherwise print.
inline std::string hdf5_error() {
  std::string text;
  const auto take = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    *static_cast<std::string*>(out) = error->desc != nullptr ? error->desc : "";
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take, &text);
  return text.empty() ? "unknown error" : text;
}

inline void prepare_hdf5() {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  unsigned int none = 0;
  H5PLset_loading_state(none);  // an unknown filter must not load code
}

struct Hdf5Handle {
  hid_t id = -1;
  herr_t (*close)(hid_t) = nullptr;
  Hdf5Handle(hid_t opened, herr_t (*closer)(hid_t)) : id(opened), close(closer) {}
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  ~Hdf5Handle() {
    if (id >= 0) {
      close(id);
    }
  }
  [[nodiscard]] bool ok() const { return id >= 0; }
};

}  // namespace lorascale::io
