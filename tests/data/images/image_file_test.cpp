// Image files written by h5py, good and bad, as users make them.
#include "data/images/image_file.hpp"

#include <gmock/gmock.h>

#include <cmath>
#include <thread>
#include <utility>

#include "support.hpp"

namespace lorascale::data {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::vector<std::uint8_t> pixels_of(const ImageFile& file, std::int64_t image) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(file.shape().values()));
  file.read_pixels(image, pixels);
  return pixels;
}

std::vector<std::uint8_t> sound_pixels(std::int64_t image) {
  std::vector<std::uint8_t> pixels;
  for (std::int64_t i = 0; i < 24; ++i) {
    pixels.push_back(sound_pixel(image * 24 + i));
  }
  return pixels;
}

// As training does it: all that can be wrong is found by then.
void read_all(const fs::path& path) {
  const ImageFile file(path);
  for (std::int64_t i = 0; i < file.images(); ++i) {
    static_cast<void>(pixels_of(file, i));
  }
}

class ImageFileTest : public ImageFileFixture {
 protected:
  // Pairs of a change and words of the message.
  void expect_refusals(const std::vector<std::pair<std::string, std::string>>& cases) {
    std::vector<std::string> changes;
    for (const auto& [change, words] : cases) {
      changes.push_back(change);
    }
    const auto paths = make(changes);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const auto message = refusal(ExitCode::kBadInput, [&] { read_all(paths[i]); });
      EXPECT_THAT(message, HasSubstr(cases[i].second)) << cases[i].first;
      EXPECT_THAT(message, HasSubstr(paths[i].string())) << cases[i].first;
    }
  }
};

TEST_F(ImageFileTest, ReadsPlainChunkedAndCompressedFiles) {
  const auto paths = make(std::vector<std::string>{
      "pass", "put(f, 'pixels', f['pixels'][:], chunks=(7,))",
      "put(f, 'pixels', f['pixels'][:], chunks=(50,), shuffle=True, compression='gzip')",
      "put(f, 'labels', f['labels'][:], chunks=(4,), fletcher32=True)", "del f['checks']",
      "del f['checks']; del f.attrs['checks_block']"});
  for (const auto& path : paths) {
    const ImageFile file(path);
    EXPECT_EQ(file.images(), 6);
    EXPECT_EQ(file.shape(), (ImageShape{2, 3, 4}));
    EXPECT_EQ(file.classes(), (std::vector<std::string>{"a", "bb", "\xC3\xBC"}));
    EXPECT_EQ(file.labels(), (std::vector<std::uint16_t>{0, 1, 2, 2, 1, 0}));
    for (const int image : {5, 0, 3, 2, 5, 1, 4}) {
      EXPECT_EQ(pixels_of(file, image), sound_pixels(image)) << path << " " << image;
    }
  }
}

TEST_F(ImageFileTest, StatisticsAreThoseOfNumpy) {
  const auto path = make(
      "x = np.random.default_rng(5).integers(0, 256, (300, 3, 9, 7)).astype(np.uint8); "
      "x[:, 1] //= 9; x[:, 2] = 200; "
      "fill(f, x, np.arange(300) % 2, ['no', 'yes'], block=4096); "
      "y = x / 255; np.savetxt(path + '.txt', [*y.mean((0, 2, 3)), *y.std((0, 2, 3))], '%.17g')");
  const auto statistics = ImageFile(path).statistics();
  std::ifstream expected(path.string() + ".txt");
  for (const auto* values : {&statistics.mean, &statistics.deviation}) {
    ASSERT_EQ(values->size(), 3U);
    for (const double value : *values) {
      double numpys = 0;
      ASSERT_TRUE(expected >> numpys);
      EXPECT_NEAR(value, numpys, 1e-12);
    }
  }
  EXPECT_GT(statistics.deviation[0], 5 * statistics.deviation[1]);
  EXPECT_EQ(statistics.deviation[2], 0);  // exactly: nothing varies
}

TEST_F(ImageFileTest, RefusesWhatIsNoImageFile) {
  expect_refusals({
      {"f.attrs['format']='lorascale-tokens'", "no image file"},
      {"del f.attrs['format']", "no image file"},
      {"f.attrs['version']=2", "version 2"},
      {"del f['pixels']", "/pixels is missing; make the file with scripts/prepare_images.py"},
      {"del f['labels']", "/labels is missing"},
      {"del f['classes']", "/classes/offsets is missing"},
      {"del f['classes/bytes']", "/classes/bytes is missing"},
      {"del f['channel_squares']", "/channel_squares is missing"},
      {"put(f, 'pixels', f['pixels'][:].astype(np.int8))",
       "little-endian u8; convert it, or make the file with scripts/prepare_images.py"},
      {"put(f, 'pixels', f['pixels'][:].reshape(6, 24))", "one dimension"},
      {"put(f, 'labels', f['labels'][:].astype('>u2'))", "little-endian u16"},
      {"put(f, 'labels', f['labels'][:].astype(np.int64))", "little-endian u16"},
      {"put(f, 'labels', f['labels'][:0]); put(f, 'pixels', f['pixels'][:0])",
       "/labels has 0 entries"},
      {"put(f, 'labels', f['labels'][:5])",
       "/pixels has 144 values, but 5 labels and pictures of 2 x 3 x 4 make 120"},
      {"put(f, 'pixels', f['pixels'][:143])", "/pixels has 143 values"},
      {"f.attrs['width']=5", "make 180"},
      {"del f.attrs['height']", "attribute height is 0"},
      {"f.attrs['channels']=-2", "attribute channels is -2"},
      {"f.attrs['width']=2.5", "attribute width must be one integer"},
      {"v=f['labels'][:]; v[4]=3; f['labels'][...]=v; seal(f)",
       "picture 4 has label 3, but there are 3 classes"},
      {"put(f, 'classes/offsets', np.array([0, 4], np.int64)); seal(f)", "names 1 classes"},
      {"put(f, 'classes/offsets', np.zeros(0, np.int64)); seal(f)", "names -1 classes"},
      {"f['classes/offsets'][...]=[0, 3, 1, 5]; seal(f)", "/classes/offsets does not fit"},
      {"f['classes/offsets'][...]=[0, 1, 3, 6]; seal(f)", "/classes/offsets does not fit"},
      {"f['classes/offsets'][...]=[1, 2, 3, 5]; seal(f)", "/classes/offsets does not fit"},
      {"f['classes/offsets'][...]=[0, 1, 1, 5]; seal(f)", "gives class 1 no name"},
      {"put(f, 'channel_sums', f['channel_sums'][:1]); seal(f)", "1 entries for 2 channels"},
  });
}

TEST_F(ImageFileTest, RefusesSumsThatNoPixelsHave) {
  // 72 values of a channel.
  const std::string words = "which 72 values of 0 to 255 cannot have";
  const auto with = [](const std::string& sum, const std::string& square) {
    return "f['channel_sums'][1]=" + sum + "; f['channel_squares'][1]=" + square + "; seal(f)";
  };
  expect_refusals({{with("-1", "0"), words},
                   {with("72*255+1", "72*255*255"), words},
                   {with("100", "99"), words},
                   {with("100", "25501"), words},
                   {with("7200", "719999"), words},  // a variance below 0
                   {with("1<<62", "1<<62"), words},
                   {with("100", "(1<<63)-1"), words},
                   {with("-(1<<63)", "-(1<<63)"), words}});
  EXPECT_EQ(refusal(ExitCode::kBadInput, [&] { read_all(make(with("7200", "720000"))); }),
            "accepted");
}

TEST_F(ImageFileTest, RefusesSizesBeyondReason) {
  expect_refusals({
      {"f.attrs['channels']=1<<32; f.attrs['height']=1<<32", "attribute channels is 4294967296"},
      {"f.attrs['channels']=f.attrs['height']=f.attrs['width']=1<<28", "more than the 268435456"},
      {"f.attrs['channels']=1; f.attrs['height']=1<<15; f.attrs['width']=1<<14",
       "more than the 268435456"},
      {"f.attrs['checks_block']=0", "checks_block is 0; it must be positive"},
      {"f.attrs['checks_block']=-1", "checks_block is -1; it must be positive"},
      {"f.attrs['checks_block']=(1<<24)+1", "at most 16777216"},
      // All of it zeros, packed some hundredfold.
      {"fill(f, np.zeros((2, 1, 2, 2), np.uint8), [0, 1], ['a', 'b']); del f['checks']; "
       "put(f, 'pixels', np.zeros(1 << 25, np.uint8), chunks=(1 << 20,), compression='gzip', "
       "compression_opts=1); "
       "f.attrs['height']=f.attrs['width']=1<<12; f.attrs['checks_block']=2",
       "makes more than 16777216 blocks"},
      {"del f['pixels']; f.create_dataset('pixels', (1 << 40,), np.uint8, chunks=(1 << 16,))",
       "/pixels declares 1099511627776 elements but stores 0 bytes"},
      {"put(f, 'labels', np.zeros((1 << 26) + 1, np.uint16), chunks=(1 << 22,), "
       "compression='gzip')",
       "/labels has 67108865 entries"},
      {"put(f, 'classes/offsets', np.zeros(65538, np.int64))", "names 65537 classes"},
      {"put(f, 'classes/bytes', np.zeros((1 << 24) + 1, np.uint8))", "16777217 bytes"},
      {"put(f, 'checks/pixels', np.zeros(2, np.uint32))", "2 entries instead of 3"},
      {"put(f, 'checks/labels', np.zeros(2, np.uint32))", "2 entries instead of 1"},
      {"put(f, 'checks/classes', np.zeros(2, np.uint32))", "2 entries instead of 1"},
  });
}

TEST_F(ImageFileTest, NeverLeavesTheFile) {
  expect_refusals({
      {"del f['pixels']; f['pixels']=h5py.ExternalLink('other.h5', '/pixels')",
       "link to another place"},
      {"del f['pixels']; f['pixels']=h5py.SoftLink('/classes/bytes')", "link to another place"},
      {"del f['classes']; f['classes']=h5py.ExternalLink('other.h5', '/classes')",
       "link to another place"},
      {"del f['labels']; f.create_dataset('labels', (6,), np.uint16, "
       "external=[('/etc/passwd', 0, 12)])",
       "in another file"},
      {"del f['pixels']; l=h5py.VirtualLayout((144,), np.uint8); "
       "l[:]=h5py.VirtualSource('o.h5', 'x', (144,)); f.create_virtual_dataset('pixels', l)",
       "virtual"},
      // A run of bytes that begins in the file and does not end there.
      {"at=f['pixels'].id.get_offset() then raw=open(path, 'rb').read(); "
       "old=struct.pack('<QQ', at, 144); assert raw.count(old) == 1; "
       "open(path, 'wb').write(raw.replace(old, struct.pack('<QQ', len(raw) - 143, 144)))",
       "/pixels ends beyond the end of the file"},
  });
}

// Flips the lowest bit of an element behind the back of HDF5.
std::string flip(const std::string& name, int index) {
  return "at=f['" + name + "'].id.get_offset()+f['" + name + "'].dtype.itemsize*" +
         std::to_string(index) +
         " then raw=bytearray(open(path, 'rb').read()); raw[at]^=1; open(path, 'wb').write(raw)";
}

TEST_F(ImageFileTest, EveryCheckFindsItsBit) {
  expect_refusals({
      {flip("pixels", 0), "block 0 of /pixels does not match its checksum"},
      {flip("pixels", 99), "block 1 of /pixels"},
      {flip("pixels", 143), "block 2 of /pixels"},
      {flip("labels", 0), "block 0 of /labels"},
      {flip("classes/bytes", 4), "/classes does not match its checksum"},
      {flip("channel_sums", 1), "/channels does not match its checksum"},
      {flip("channel_squares", 0), "/channels does not match its checksum"},
      {flip("checks/pixels", 1), "block 1 of /pixels"},
  });
}

TEST_F(ImageFileTest, DamageStaysWhereItIs) {
  const ImageFile file(make(flip("pixels", 60)));  // block 1, 50 to 99: pictures 2, 3 and 4
  for (int round = 0; round < 2; ++round) {
    for (const int image : {0, 1, 5}) {
      EXPECT_EQ(pixels_of(file, image), sound_pixels(image));
    }
    for (const int image : {2, 3, 4}) {
      EXPECT_THROW(static_cast<void>(pixels_of(file, image)), Error) << image;
    }
  }
}

TEST_F(ImageFileTest, RefusesTruncatedFiles) {
  const auto path = make("pass");
  fs::resize_file(path, fs::file_size(path) - 100);
  EXPECT_THROW(ImageFile{path}, Error);
  std::ofstream(folder_ / "text.h5") << "no HDF5 at all";
  EXPECT_THAT(refusal(ExitCode::kBadInput, [&] { read_all(folder_ / "text.h5"); }),
              HasSubstr("no HDF5 file; make it with scripts/prepare_images.py"));
  EXPECT_THROW(ImageFile(folder_ / "missing.h5"), Error);
}

// Shrunk behind our back after it was opened: an error, not a signal.
TEST_F(ImageFileTest, AFileThatShrinksInUseIsAnError) {
  const auto path = make("pass");
  const ImageFile file(path);
  EXPECT_EQ(pixels_of(file, 0), sound_pixels(0));
  fs::resize_file(path, 10);
  EXPECT_THROW(static_cast<void>(pixels_of(file, 0)), Error);
}

TEST_F(ImageFileTest, FingerprintsTellContentsApart) {
  const std::string pixel = "v=f['pixels'][:]; v[77]^=1; put(f, 'pixels', v); ";
  const auto paths = make(std::vector<std::string>{
      "pass", pixel + "seal(f)", "v=f['labels'][:]; v[2]=1; f['labels'][...]=v; seal(f)",
      "v=f['classes/bytes'][:]; v[0]=120; f['classes/bytes'][...]=v; seal(f)",
      "f['classes/offsets'][...]=[0, 2, 3, 5]; seal(f)", "f.attrs['height']=4; f.attrs['width']=3",
      "del f['checks']", "del f['checks']; " + pixel});
  std::vector<std::string> fingerprints;
  for (const auto& path : paths) {
    const auto fingerprint = ImageFile(path).fingerprint();
    EXPECT_EQ(fingerprint.size(), 64U);
    EXPECT_THAT(fingerprints, testing::Not(testing::Contains(fingerprint))) << path;
    fingerprints.push_back(fingerprint);
  }
  // Where it lies and where its pictures came from does not matter.
  EXPECT_EQ(ImageFile(make("put(f, 'names/bytes', np.zeros(9, np.uint8))")).fingerprint(),
            fingerprints[0]);
}

TEST_F(ImageFileTest, SeveralThreadsReadAtOnce) {
  for (const char* change : {"pass", "put(f, 'pixels', f['pixels'][:], chunks=(20,))"}) {
    const ImageFile file(make(change));
    std::vector<int> wrong(4);
    {
      std::vector<std::jthread> threads;
      for (std::size_t t = 0; t < wrong.size(); ++t) {
        threads.emplace_back([&, t] {
          for (int i = 0; i < 300; ++i) {
            const auto image = (i * 5 + static_cast<int>(t)) % 6;
            wrong[t] += pixels_of(file, image) != sound_pixels(image) ? 1 : 0;
          }
        });
      }
    }
    EXPECT_EQ(wrong, std::vector<int>(4)) << change;
  }
}

}  // namespace
}  // namespace lorascale::data
