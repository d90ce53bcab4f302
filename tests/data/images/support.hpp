// Image files written by h5py, good and bad; many of them in one run of Python.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "data/h5py_files.hpp"

namespace lorascale::data {

// A small sound file is 6 pictures of 2 x 3 x 4 in 3 classes, checked in blocks of 50 values.
inline std::uint8_t sound_pixel(std::int64_t index) {
  return static_cast<std::uint8_t>((index * 37 + 11) % 256);
}

inline constexpr const char* kImageScript = R"(
import h5py, numpy as np, struct, zlib
crc = lambda a, b: np.array([zlib.crc32(a[i:i + b].tobytes()) for i in range(0, len(a), b)], np.uint32)
def put(f, name, values, **how):
  if name in f: del f[name]
  f.create_dataset(name, data=values, **how)
def seal(f):
  b = int(f.attrs['checks_block'])
  for name in ('pixels', 'labels'): put(f, 'checks/' + name, crc(f[name][:], b))
  for name, parts in (('classes', ('classes/bytes', 'classes/offsets')),
                      ('channels', ('channel_sums', 'channel_squares'))):
    raw = b''.join(f[part][:].tobytes() for part in parts)
    put(f, 'checks/' + name, np.array([zlib.crc32(raw)], np.uint32))
def fill(f, x, labels, classes, block=50):  # x [n, c, h, w]
  f.attrs['format'] = 'lorascale-images'; f.attrs['version'] = 1; f.attrs['checks_block'] = block
  for name, value in zip(('channels', 'height', 'width'), x.shape[1:]): f.attrs[name] = value
  put(f, 'pixels', x.ravel()); put(f, 'labels', np.array(labels, np.uint16))
  names = [name.encode() for name in classes]
  put(f, 'classes/bytes', np.frombuffer(b''.join(names), np.uint8))
  put(f, 'classes/offsets', np.cumsum([0] + [len(name) for name in names]).astype(np.int64))
  wide = x.astype(np.int64)
  put(f, 'channel_sums', wide.sum((0, 2, 3))); put(f, 'channel_squares', (wide ** 2).sum((0, 2, 3)))
  seal(f)
def sound(f):
  fill(f, ((np.arange(144) * 37 + 11) % 256).astype(np.uint8).reshape(6, 2, 3, 4), [0, 1, 2, 2, 1, 0],
       ['a', 'bb', '\xfc'])
)";

class ImageFileFixture : public H5pyFiles {
 protected:
  ImageFileFixture() : H5pyFiles(kImageScript, "sound(f)") {}
};

// The message of the error with `code` that `action` ends in; one line.
template <typename Action>
std::string refusal(ExitCode code, const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), code) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  return "accepted";
}

}  // namespace lorascale::data
