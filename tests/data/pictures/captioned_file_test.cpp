// Files of captioned pictures: what they hold, and what is refused.
#include "data/pictures/captioned_file.hpp"

#include <utility>

#include "data/pictures/support.hpp"

namespace lorascale::data {
namespace {

constexpr const char* kSound = "fill(f, [(8, 8, 0, 1), (8, 20, 1, 3), (18, 8, 2, 1)], encoders=2)";

TEST_F(CaptionedFileFixture, ReadsWhatIsThere) {
  const CaptionedFile file(make(kSound));
  EXPECT_EQ(file.images(), 3);
  EXPECT_EQ(file.size(1), (PictureSize{8, 20}));
  EXPECT_EQ(file.original(1), (PictureSize{16, 60}));
  EXPECT_EQ(file.buckets()[static_cast<std::size_t>(file.bucket(2))], (PictureSize{16, 8}));
  EXPECT_EQ(file.repeats(1), 3);
  EXPECT_TRUE(!file.regularisation(0) && file.regularisation(1));
  EXPECT_EQ(file.caption(2), "a2, b, c");
  EXPECT_EQ(file.tags(2), 3);
  const auto alone = file.tag(2, 1, false), with_comma = file.tag(2, 1, true);
  EXPECT_EQ(std::vector(alone.begin(), alone.end()), (std::vector<std::int32_t>{31}));
  EXPECT_EQ(std::vector(with_comma.begin(), with_comma.end()), (std::vector<std::int32_t>{31, 40}));
  EXPECT_EQ(file.tokens().pads, (std::vector<std::int32_t>{49, 0}));
  std::vector<std::uint8_t> pixels(3 * 18 * 8);
  file.read_pixels(2, pixels);
  EXPECT_EQ(pixels[0], 26);
  EXPECT_EQ(pixels[10], 96);
  EXPECT_EQ(file.digest(0).size(), 64U);
}

TEST_F(CaptionedFileFixture, WhatDoesNotHoldTogetherIsRefused) {
  const std::vector<std::pair<std::string, std::string>> changes = {
      {"f.attrs['format'] = 'x'", "is no file of captioned pictures"},
      {"f.attrs['version'] = 2", "attribute version is 2"},
      {"f.attrs['channels'] = 5", "attribute channels is 5"},
      {"f.attrs['end_token'] = 50", "attribute end_token is 50"},
      {"put(f, 'heights', np.array([8, 8], '<u4')); seal(f)", "differ in length"},
      {"put(f, 'heights', np.array([8, 8, 0], '<u4')); seal(f)", "/heights holds 0"},
      {"put(f, 'heights', np.array([8, 8, 4000000000], '<u4')); seal(f)",
       "/heights holds 4000000000"},
      {"put(f, 'bucket', np.array([0, 1, 3], '<u4')); seal(f)", "/bucket holds 3"},
      {"put(f, 'bucket', np.array([1, 1, 2], '<u4')); seal(f)", "does not fill its bucket"},
      {"put(f, 'repeats', np.array([1, 0, 1], '<u4')); seal(f)", "/repeats holds 0"},
      {"put(f, 'repeats', np.array([1, 1], '<u4')); seal(f)", "do not agree on the number"},
      {"put(f, 'pixels', f['pixels'][:-1]); seal(f)", "the pictures' sizes make"},
      {"put(f, 'tokens', f['tokens'][:] + 45); seal(f)", "/tokens holds"},
      {"put(f, 'tags', f['tags'][:][::-1]); seal(f)", "/tags does not ascend"},
      {"put(f, 'tags', f['tags'][1:] * 0 + 27); seal(f)", "/tags does not ascend"},
      {"put(f, 'caption_tags', f['caption_tags'][:] + 1); seal(f)",
       "/caption_tags does not ascend"},
      {"put(f, 'caption_tags', np.array([0, 9])); seal(f)", "not as many as its pictures"},
      {"f['tokens'][0] = 5", "checksum"},
      {"del f['digests']", "digests"},
  };
  std::vector<std::string> scripts;
  for (const auto& [change, message] : changes) {
    scripts.push_back(std::string(kSound) + "; " + change);
  }
  const auto paths = make(scripts);
  for (std::size_t i = 0; i < paths.size(); ++i) {
    try {
      const CaptionedFile file(paths[i]);
      ADD_FAILURE() << changes[i].first << " passes";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput);
      EXPECT_NE(std::string(error.what()).find(changes[i].second), std::string::npos)
          << changes[i].first << ": " << error.what();
    }
  }
}

TEST_F(CaptionedFileFixture, DamagedPixelsAreFoundWhenTouched) {
  const CaptionedFile file(make(std::string(kSound) + "; f['pixels'][700] = 1 + f['pixels'][700]"));
  std::vector<std::uint8_t> first(3 * 8 * 8), last(3 * 18 * 8);
  file.read_pixels(0, first);
  EXPECT_THROW(file.read_pixels(2, last), Error);
}

TEST_F(CaptionedFileFixture, FingerprintsTellPicturesAndCaptionsApart) {
  const auto paths =
      make({kSound, std::string(kSound) + "; put(f, 'tokens', f['tokens'][:] + 1); seal(f)",
            "fill(f, [(8, 8, 0, 2), (8, 20, 1, 3), (18, 8, 2, 1)], encoders=2)", kSound});
  EXPECT_EQ(CaptionedFile(paths[0]).fingerprint(), CaptionedFile(paths[3]).fingerprint());
  EXPECT_NE(CaptionedFile(paths[0]).fingerprint(), CaptionedFile(paths[1]).fingerprint());
  EXPECT_NE(CaptionedFile(paths[0]).fingerprint(), CaptionedFile(paths[2]).fingerprint());
}

}  // namespace
}  // namespace lorascale::data
