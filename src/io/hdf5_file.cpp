#include "io/hdf5_file.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <utility>

#include "base/error.hpp"
#include "io/file_descriptor.hpp"
#include "io/hdf5_library.hpp"

namespace lorascale::io {
namespace {

// Stored bytes may stand for at most this many times as many declared ones: no decompression bombs.
constexpr std::uint64_t kMaxExpansion = 1000;
constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 44;

using Handle = Hdf5Handle;
using Lock = Hdf5Lock;

hid_t native_type(Hdf5Type type) {
  switch (type) {
    case Hdf5Type::kUint8:
      return H5T_NATIVE_UINT8;
    case Hdf5Type::kUint16:
      return H5T_NATIVE_UINT16;
    case Hdf5Type::kUint32:
      return H5T_NATIVE_UINT32;
    case Hdf5Type::kInt64:
      return H5T_NATIVE_INT64;
  }
  LS_ASSERT(false);
  return -1;
}

const char* name_of(Hdf5Type type) {
  constexpr std::array kNames = {"u8", "u16", "u32", "i64"};
  return kNames[static_cast<std::size_t>(type)];
}

std::optional<Hdf5Type> stored_type(hid_t type) {
  if (H5Tget_class(type) != H5T_INTEGER || H5Tget_order(type) == H5T_ORDER_BE) {
    return std::nullopt;
  }
  const bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
  for (const auto candidate :
       {Hdf5Type::kUint8, Hdf5Type::kUint16, Hdf5Type::kUint32, Hdf5Type::kInt64}) {
    if (H5Tget_size(type) == size_of(candidate) && is_signed == (candidate == Hdf5Type::kInt64) &&
        H5Tget_precision(type) == 8 * size_of(candidate)) {
      return candidate;
    }
  }
  return std::nullopt;
}

void check_storage(hid_t dataset, const std::string& where) {
  const Handle plist(H5Dget_create_plist(dataset), H5Pclose);
  if (!plist.ok() || H5Pget_external_count(plist.id) != 0) {
    throw_bad_input(where +
                    " keeps its data in another file, which is refused; write it into this one");
  }
  if (H5Pget_layout(plist.id) == H5D_VIRTUAL) {
    throw_bad_input(where +
                    " is a virtual data set, which is refused; write the data into this file");
  }
  const int filters = H5Pget_nfilters(plist.id);
  for (int i = 0; i < filters; ++i) {
    unsigned int flags = 0;
    std::size_t values = 0;
    const auto filter = H5Pget_filter2(plist.id, static_cast<unsigned>(i), &flags, &values, nullptr,
                                       0, nullptr, nullptr);
    if (filter != H5Z_FILTER_FLETCHER32 && filter != H5Z_FILTER_SHUFFLE &&
        filter != H5Z_FILTER_DEFLATE) {
      throw_bad_input(where + " uses HDF5 filter " + std::to_string(filter) +
                      "; only deflate (gzip), shuffle and fletcher32 are read");
    }
  }
}

// Whether `action` comes to an end in a child of this process. The library before 1.14 follows a
// damaged reference to its heap wherever it leads, so a string of variable length is read there
// first.
bool survives(const std::function<bool()>& action) {
  constexpr unsigned kSeconds = 10;
  constexpr int kRead = 40, kRefused = 41;  // no other end of a process has these codes
  if (H5_VERSION_GE(1, 14, 0)) {
    return true;
  }
  const pid_t child = fork();
  if (child < 0) {
    return true;  // a sound file must not suffer from it
  }
  if (child == 0) {
    for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM}) {
      std::signal(signal, SIG_DFL);
    }
    constexpr rlimit kNoCore = {0, 0};
    setrlimit(RLIMIT_CORE, &kNoCore);
    alarm(kSeconds);
    _exit(action() ? kRead : kRefused);
  }
  int status = 0;
  pid_t ended = -1;
  while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
  }
  return ended != child ||
         (WIFEXITED(status) && (WEXITSTATUS(status) == kRead || WEXITSTATUS(status) == kRefused));
}

}  // namespace

std::size_t size_of(Hdf5Type type) {
  constexpr std::array<std::size_t, 4> kSizes = {1, 2, 4, 8};
  return kSizes[static_cast<std::size_t>(type)];
}

Hdf5Dataset::Hdf5Dataset(std::int64_t id, std::string where) : id_(id), where_(std::move(where)) {}

Hdf5Dataset::Hdf5Dataset(Hdf5Dataset&& other) noexcept
    : id_(std::exchange(other.id_, -1)),
      where_(std::move(other.where_)),
      type_(other.type_),
      size_(other.size_),
      raw_offset_(other.raw_offset_) {}

Hdf5Dataset::~Hdf5Dataset() {
  if (id_ >= 0) {
    const Lock lock(hdf5_lock());
    H5Dclose(id_);
  }
}

void Hdf5Dataset::check(const std::vector<Hdf5Type>& accepted, const std::string& maker) {
  const Handle type(H5Dget_type(id_), H5Tclose);
  const auto found = stored_type(type.id);
  if (!found || std::find(accepted.begin(), accepted.end(), *found) == accepted.end()) {
    std::string names;
    for (const auto candidate : accepted) {
      names += (names.empty() ? "" : " or ") + std::string(name_of(candidate));
    }
    throw_bad_input(where_ + " must hold little-endian " + names +
                    "; convert it, or make the file with " + maker);
  }
  type_ = *found;
  const Handle space(H5Dget_space(id_), H5Sclose);
  hsize_t extent = 0;
  if (H5Sget_simple_extent_ndims(space.id) != 1 ||
      H5Sget_simple_extent_dims(space.id, &extent, nullptr) != 1) {
    throw_bad_input(where_ + " must have one dimension");
  }
  size_ = extent;
  check_storage(id_, where_);
  const std::uint64_t stored = H5Dget_storage_size(id_);
  if (size_ > kMaxBytes / io::size_of(type_) ||
      (size_ > 0 && size_ * io::size_of(type_) / kMaxExpansion > stored) ||
      (size_ > 0 && stored == 0)) {
    throw_bad_input(where_ + " declares " + std::to_string(size_) + " elements but stores " +
                    std::to_string(stored) + " bytes; the file is damaged");
  }
  const haddr_t offset = H5Dget_offset(id_);
  const Handle plist(H5Dget_create_plist(id_), H5Pclose);
  if (offset != HADDR_UNDEF && H5Pget_layout(plist.id) == H5D_CONTIGUOUS) {
    raw_offset_ = offset;
  }
}

void Hdf5Dataset::read(std::uint64_t first, std::uint64_t count, void* destination) const {
  if (count == 0) {
    return;
  }
  LS_ASSERT(first + count <= size_);
  const Lock lock(hdf5_lock());
  const Handle file_space(H5Dget_space(id_), H5Sclose);
  const hsize_t start = first;
  const hsize_t length = count;
  const Handle memory_space(H5Screate_simple(1, &length, nullptr), H5Sclose);
  if (H5Sselect_hyperslab(file_space.id, H5S_SELECT_SET, &start, nullptr, &length, nullptr) < 0 ||
      H5Dread(id_, native_type(type_), memory_space.id, file_space.id, H5P_DEFAULT, destination) <
          0) {
    throw_bad_input(where_ + " cannot be read: " + hdf5_error() +
                    "; the file is damaged, make it again");
  }
}

Hdf5File::Hdf5File(std::filesystem::path path, std::string maker)
    : path_(std::move(path)), maker_(std::move(maker)), id_(-1) {
  open_for_reading(path_);  // a clear message where it is missing or no file
  const Lock lock(hdf5_lock());
  prepare_hdf5();
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fclose_degree(access.id, H5F_CLOSE_STRONG);
  id_ = H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access.id);
  if (id_ < 0) {
    const std::string why = hdf5_error();
    const htri_t known = H5Fis_hdf5(path_.c_str());
    throw_bad_input(
        path_.string() +
        (known == 0 ? " is no HDF5 file; make it with " + maker_
                    : " is no readable HDF5 file: " + why +
                          "; is it complete? If so, and it lies on a file system without locks, "
                          "set HDF5_USE_FILE_LOCKING=FALSE"));
  }
}

Hdf5File::~Hdf5File() {
  const Lock lock(hdf5_lock());
  H5Fclose(id_);
}

bool Hdf5File::has(const std::string& name) const {
  const Lock lock(hdf5_lock());
  // Every component by itself: a link in the middle could lead out of the file.
  for (std::size_t end = name.find('/', 1);; end = name.find('/', end + 1)) {
    const std::string prefix = name.substr(0, end);
    H5L_info_t info{};
    if (H5Lexists(id_, prefix.c_str(), H5P_DEFAULT) <= 0) {
      return false;
    }
    if (H5Lget_info(id_, prefix.c_str(), &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_HARD) {
      throw_bad_input(path_.string() + ": " + prefix +
                      " is a link to another place, which is refused; store the data itself");
    }
    if (end == std::string::npos) {
      return true;
    }
  }
}

Hdf5Dataset Hdf5File::dataset(const std::string& name,
                              const std::vector<Hdf5Type>& accepted) const {
  const std::string where = path_.string() + ": " + name;
  if (!has(name)) {
    throw_bad_input(where + " is missing; make the file with " + maker_);
  }
  const Lock lock(hdf5_lock());
  const hid_t id = H5Dopen2(id_, name.c_str(), H5P_DEFAULT);
  if (id < 0) {
    throw_bad_input(where + " is no data set that can be opened: " + hdf5_error());
  }
  Hdf5Dataset dataset(id, where);
  dataset.check(accepted, maker_);
  return dataset;
}

namespace {

// An attribute of a file's root that is opened, with its type.
struct Attribute {
  Attribute(hid_t file, const std::string& name)
      : handle(H5Aopen(file, name.c_str(), H5P_DEFAULT), H5Aclose),
        type(H5Aget_type(handle.id), H5Tclose) {}

  [[nodiscard]] bool is_one(H5T_class_t kind) const {
    const Handle space(H5Aget_space(handle.id), H5Sclose);
    return H5Tget_class(type.id) == kind && H5Sget_simple_extent_npoints(space.id) == 1;
  }

  Handle handle, type;
};

}  // namespace

std::optional<std::string> Hdf5File::text_attribute(const std::string& name) const {
  const Lock lock(hdf5_lock());
  if (H5Aexists(id_, name.c_str()) <= 0) {
    return std::nullopt;
  }
  const std::string where = path_.string() + ": attribute " + name;
  const Attribute attribute(id_, name);
  const auto& type = attribute.type;
  if (!attribute.is_one(H5T_STRING)) {
    throw_bad_input(where + " must be one string");
  }
  const Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
  if (H5Tis_variable_str(type.id) > 0) {
    char* text = nullptr;
    H5Tset_size(memory.id, H5T_VARIABLE);
    H5Tset_cset(memory.id, H5Tget_cset(type.id));
    const auto read = [&] { return H5Aread(attribute.handle.id, memory.id, &text) >= 0; };
    if (!survives(read)) {
      throw_bad_input(where + " leads nowhere; the file is damaged, make it again");
    }
    if (!read() || text == nullptr) {
      throw_bad_input(where + " cannot be read: " + hdf5_error());
    }
    std::string result(text, strnlen(text, 4096));
    H5free_memory(text);
    return result;
  }
  const auto size = H5Tget_size(type.id);
  if (size > 4096) {
    throw_bad_input(where + " is too long");
  }
  std::string text(size + 1, '\0');
  H5Tset_size(memory.id, size + 1);
  H5Tset_cset(memory.id, H5Tget_cset(type.id));
  if (H5Aread(attribute.handle.id, memory.id, text.data()) < 0) {
    throw_bad_input(where + " cannot be read: " + hdf5_error());
  }
  return text.substr(0, text.find('\0'));
}

std::optional<std::int64_t> Hdf5File::integer_attribute(const std::string& name) const {
  const Lock lock(hdf5_lock());
  if (H5Aexists(id_, name.c_str()) <= 0) {
    return std::nullopt;
  }
  const Attribute attribute(id_, name);
  std::int64_t value = 0;
  if (!attribute.is_one(H5T_INTEGER) ||
      H5Aread(attribute.handle.id, H5T_NATIVE_INT64, &value) < 0) {
    throw_bad_input(path_.string() + ": attribute " + name + " must be one integer");
  }
  return value;
}

}  // namespace lorascale::io
