#include "io/hdf5_image.hpp"

#include "base/error.hpp"
#include "io/hdf5_library.hpp"

namespace lorascale::io {
namespace {

constexpr std::size_t kGrowth = std::size_t{1} << 20;  // of the file in memory, bytes

[[noreturn]] void throw_refused(const std::string& what) {
  throw Error(ExitCode::kInternal, "HDF5 does not make " + what + ": " + hdf5_error());
}

}  // namespace

Hdf5Image::Hdf5Image() : id_(-1) {
  const Hdf5Lock lock(hdf5_lock());
  prepare_hdf5();
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fclose_degree(access.id, H5F_CLOSE_STRONG);
  // Without a file behind it; the name is for messages alone.
  if (H5Pset_fapl_core(access.id, kGrowth, /*backing_store=*/0) < 0 ||
      (id_ = H5Fcreate("lorascale", H5F_ACC_TRUNC, H5P_DEFAULT, access.id)) < 0) {
    throw_refused("a file in memory");
  }
}

Hdf5Image::~Hdf5Image() {
  const Hdf5Lock lock(hdf5_lock());
  H5Fclose(id_);
}

void Hdf5Image::add(const std::string& name, std::span<const std::uint8_t> values) {
  add(name, H5T_STD_U8LE, H5T_NATIVE_UINT8, values.size(), values.data());
}
void Hdf5Image::add(const std::string& name, std::span<const std::uint32_t> values) {
  add(name, H5T_STD_U32LE, H5T_NATIVE_UINT32, values.size(), values.data());
}
void Hdf5Image::add(const std::string& name, std::span<const std::int64_t> values) {
  add(name, H5T_STD_I64LE, H5T_NATIVE_INT64, values.size(), values.data());
}

void Hdf5Image::add(const std::string& name, std::int64_t stored, std::int64_t in_memory,
                    std::size_t count, const void* data) {
  const Hdf5Lock lock(hdf5_lock());
  const hsize_t extent = count;
  const Hdf5Handle space(H5Screate_simple(1, &extent, nullptr), H5Sclose);
  const Hdf5Handle dataset(
      H5Dcreate2(id_, name.c_str(), stored, space.id, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
      H5Dclose);
  if (!dataset.ok() ||
      (count > 0 && H5Dwrite(dataset.id, in_memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)) {
    throw_refused("data set " + name);
  }
}

void Hdf5Image::add_attribute(const std::string& name, std::int64_t value) {
  const Hdf5Lock lock(hdf5_lock());
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle attribute(
      H5Acreate2(id_, name.c_str(), H5T_STD_I64LE, space.id, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!attribute.ok() || H5Awrite(attribute.id, H5T_NATIVE_INT64, &value) < 0) {
    throw_refused("attribute " + name);
  }
}

void Hdf5Image::add_attribute(const std::string& name, const std::string& value) {
  const Hdf5Lock lock(hdf5_lock());
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.id, value.size() + 1);
  H5Tset_cset(type.id, H5T_CSET_UTF8);
  const Hdf5Handle attribute(
      H5Acreate2(id_, name.c_str(), type.id, space.id, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!attribute.ok() || H5Awrite(attribute.id, type.id, value.c_str()) < 0) {
    throw_refused("attribute " + name);
  }
}

std::vector<std::byte> Hdf5Image::bytes() const {
  const Hdf5Lock lock(hdf5_lock());
  H5Fflush(id_, H5F_SCOPE_GLOBAL);
  const auto size = H5Fget_file_image(id_, nullptr, 0);
  std::vector<std::byte> image(size > 0 ? static_cast<std::size_t>(size) : 0);
  if (size <= 0 || H5Fget_file_image(id_, image.data(), image.size()) != size) {
    throw_refused("a file");
  }
  return image;
}

}  // namespace lorascale::io
