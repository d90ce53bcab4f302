// Files of captioned pictures written by h5py, good and bad; many of them in one run of Python.
#pragma once

#include <gtest/gtest.h>

#include "data/h5py_files.hpp"

namespace lorascale::data {

// A sound file: `many` lists (height, width, bucket, repeats) of each picture, the buckets being
// (8, 8), (8, 16) and (16, 8); captions are "a<i>, b, c" of one token a tag, which with its comma
// is two.
inline constexpr const char* kCaptionedScript = R"(
import h5py, hashlib, numpy as np, struct, zlib
def put(f, name, values):
  if name in f: del f[name]
  f.create_dataset(name, data=values)
def seal(f):
  if 'checks' in f: del f['checks']
  b = int(f.attrs['checks_block'])
  for name in list(f):
    if name in ('captions', 'names'):
      raw = f[name + '/bytes'][:].tobytes() + f[name + '/offsets'][:].tobytes()
      put(f, 'checks/' + name, np.array([zlib.crc32(raw)], np.uint32))
    elif name != 'pixels':
      put(f, 'checks/' + name, np.array([zlib.crc32(f[name][:].tobytes())], np.uint32))
  a = f['pixels'][:]
  put(f, 'checks/pixels', np.array([zlib.crc32(a[i:i + b].tobytes()) for i in range(0, len(a), b)], np.uint32))
def table(f, name, texts):
  raw = [text.encode() for text in texts]
  put(f, name + '/bytes', np.frombuffer(b''.join(raw), np.uint8))
  put(f, name + '/offsets', np.cumsum([0] + [len(text) for text in raw]).astype(np.int64))
def fill(f, many, channels=3, encoders=1):
  u4 = lambda values: np.array(values, '<u4')
  for key, value in dict(version=1, channels=channels, checks_block=100, vocabulary=50, begin_token=48, end_token=49,
                         pad_token=49, **({'pad_token_2': 0} if encoders > 1 else {})).items():
    f.attrs[key] = value
  f.attrs['format'] = 'lorascale-captioned-images'; f.attrs['tokenizer_sha256'] = 'abc'
  n = len(many)
  pictures = [((np.arange(channels * h * w) * 7 + 13 * i) % 256).astype(np.uint8) for i, (h, w, _, _) in enumerate(many)]
  put(f, 'pixels', np.concatenate(pictures))
  put(f, 'heights', u4([p[0] for p in many])); put(f, 'widths', u4([p[1] for p in many]))
  put(f, 'original_heights', u4([2 * p[0] for p in many])); put(f, 'original_widths', u4([3 * p[1] for p in many]))
  put(f, 'bucket_heights', u4([8, 8, 16])); put(f, 'bucket_widths', u4([8, 16, 8]))
  put(f, 'bucket', u4([p[2] for p in many])); put(f, 'repeats', u4([p[3] for p in many]))
  put(f, 'regularisation', np.array([i % 2 for i in range(n)], np.uint8))
  put(f, 'digests', np.frombuffer(b''.join(hashlib.sha256(p.tobytes()).digest() for p in pictures), np.uint8))
  put(f, 'tokens', u4([t for i in range(n) for tag in (i % 30, 31, 32) for t in (tag, 40, tag)]))
  put(f, 'tags', np.array([0] + [x for i in range(3 * n) for x in (3 * i + 2, 3 * i + 3)], np.int64))
  put(f, 'caption_tags', np.arange(0, 3 * n + 1, 3).astype(np.int64))
  table(f, 'captions', [f'a{i}, b, c' for i in range(n)]); table(f, 'names', [f'{i}.png' for i in range(n)])
  seal(f)
)";

class CaptionedFileFixture : public H5pyFiles {
 protected:
  CaptionedFileFixture() : H5pyFiles(kCaptionedScript, "pass") {}
};

}  // namespace lorascale::data
