// Files written by h5py, good and bad, as users make them.
#include "data/tokens/token_file.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "base/error.hpp"
#include "data/tokens/leaf_builder.hpp"
#include "data/tokens/target_scan.hpp"
#include "support/temp_folder.hpp"

namespace lorascale::data {
namespace {

namespace fs = std::filesystem;

class TokenFileTest : public testing::Test {
 protected:
  // Runs h5py statements over an open file `f` that holds a small sound data set.
  fs::path make(const std::string& change) {
    const fs::path path = folder_ / "set.h5";
    const fs::path script = folder_ / "make.py";
    std::ofstream(script) << "import h5py, numpy as np, zlib\n"
                             "with h5py.File(r'"
                          << path.string()
                          << "', 'w') as f:\n"
                             "  f.attrs['format']='lorascale-tokens'; f.attrs['version']=1\n"
                             "  f.attrs['vocab_size']=100; f.attrs['eos_id']=-1\n"
                             "  t=np.arange(10,dtype=np.uint16); f['tokens']=t\n"
                             "  f['offsets']=np.array([0,4,10],dtype=np.int64)\n"
                             "  "
                          << change << "\n";
    const std::string command = std::string(LORASCALE_PYTHON) + " " + script.string();
    EXPECT_EQ(std::system(command.c_str()), 0) << change;
    return path;
  }

  // The message with which the set made by `change` is refused, at opening or when its tokens are
  // read.
  std::string refusal(const std::string& change) {
    const fs::path path = make(change);
    try {
      const TokenFile set(path, 100);
      std::vector<std::int32_t> ids(static_cast<std::size_t>(set.tokens()));
      set.read_tokens(0, ids);
      if (set.has_loss_mask()) {
        std::vector<std::uint8_t> mask(ids.size());
        set.read_mask(0, mask);
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput);
      EXPECT_NE(std::string(error.what()).find("set.h5"), std::string::npos) << error.what();
      return error.what();
    }
    return "accepted";
  }
  void expect_refusal(const std::string& change, const std::string& words) {
    const auto message = refusal(change);
    EXPECT_NE(message.find(words), std::string::npos) << change << "\n  said: " << message;
  }

  test::TempFolder folder_;
};

TEST_F(TokenFileTest, ReadsPlainChunkedAndCompressedFiles) {
  for (const char* change :
       {"pass", "del f['tokens']; f.create_dataset('tokens', data=t, chunks=(4,))",
        "del f['tokens']; f.create_dataset('tokens', data=t, chunks=(4,), shuffle=True, "
        "compression='gzip')",
        "del f['tokens']; f.create_dataset('tokens', data=t.astype(np.uint32), chunks=(3,), "
        "fletcher32=True)"}) {
    const TokenFile set(make(change), 100);
    EXPECT_EQ(set.documents(), 2);
    std::vector<std::int32_t> ids(6);
    set.read_tokens(4, ids);
    EXPECT_EQ(ids, (std::vector<std::int32_t>{4, 5, 6, 7, 8, 9})) << change;
  }
}

TEST_F(TokenFileTest, BuildsLeavesWithoutLabelsAcrossDocuments) {
  const TokenFile set(make("f['loss_mask']=np.array([1,1,0,1,1,1,1,0,1,1],dtype=np.uint8)"), 100);
  const RowPlan plan(set.offsets(), 16, /*packing=*/true);
  ASSERT_EQ(plan.rows(), 1);
  const std::vector<std::int64_t> rows = {0};
  const auto leaf = build_leaf(set, plan, {7, 3}, rows);
  EXPECT_EQ(leaf.key.epoch, 3);
  EXPECT_EQ(leaf.units, 10);
  EXPECT_EQ(leaf.tokens, (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(leaf.positions, (std::vector<std::int32_t>{0, 1, 2, 3, 0, 1, 2, 3, 4, 5}));
  // The mask says which tokens count as targets: 2 and 7 do not.
  EXPECT_EQ(leaf.labels, (std::vector<std::int32_t>{1, -1, 3, -1, 5, 6, -1, 8, 9, -1}));
  EXPECT_EQ(leaf.targets, 6);
  ASSERT_EQ(leaf.segments.size(), 2U);
  EXPECT_EQ(leaf.segments[1].begin, 4);
  EXPECT_EQ(leaf.row_offsets, (std::vector<std::int32_t>{0, 10}));
}

TEST_F(TokenFileTest, RefusesWhatIsNoSoundDataSet) {
  expect_refusal("f.attrs['format']='other'", "no token data set");
  expect_refusal("f.attrs['version']=2", "version 2");
  expect_refusal("del f['tokens']", "/tokens is missing");
  expect_refusal("del f['tokens']; f['tokens']=t.astype(np.int64)", "u16 or u32");
  expect_refusal("del f['tokens']; f['tokens']=t.astype(np.float32)", "u16 or u32");
  expect_refusal("del f['tokens']; f['tokens']=t.astype('>u2')", "little-endian");
  expect_refusal("del f['tokens']; f['tokens']=t.reshape(2,5)", "one dimension");
  expect_refusal("t[7]=100; f['tokens'][...]=t", "document 1, token 3 is id 100");
  expect_refusal("del f['offsets']; f['offsets']=np.array([0],dtype=np.int64)",
                 "names no document");
  expect_refusal("f['offsets'][...]=[0,4,9]", "end at the number of tokens");
  expect_refusal("f['offsets'][...]=[1,4,10]", "must begin at 0");
  expect_refusal("del f['offsets']; f['offsets']=np.array([0,4,4,10],dtype=np.int64)",
                 "must ascend");
  expect_refusal("f['loss_mask']=np.ones(9,dtype=np.uint8)", "9 entries for 10 tokens");
  expect_refusal("f['loss_mask']=np.full(10,2,dtype=np.uint8)", "only 0 and 1");
  expect_refusal("f['checks/tokens']=np.array([1],dtype=np.uint32)", "checksum");
  expect_refusal("f['checks/offsets']=np.array([1],dtype=np.uint32)", "checksum");
}

// A tokenizer may know tokens that the model lacks; documents may not hold them, which is known
// when the file is opened.
TEST_F(TokenFileTest, ALargerVocabularyIsTakenWhereNoIdReachesBeyond) {
  EXPECT_EQ(refusal("f.attrs['vocab_size']=200"), "accepted");
  EXPECT_EQ(refusal("f.attrs['vocab_size']=200; f.attrs['eos_id']=150"), "accepted");
  expect_refusal("f.attrs['vocab_size']=200; t[7]=100; f['tokens'][...]=t",
                 "document 1, token 3 is id 100, but the model's vocabulary ends at 99");
  const fs::path path = make("f.attrs['vocab_size']=200; t[9]=199; f['tokens'][...]=t");
  EXPECT_THROW(TokenFile(path, 100), Error);
  EXPECT_NO_THROW(TokenFile(path, 200));
}

TEST_F(TokenFileTest, TargetsAreCountedOverBlocks) {
  const std::vector<int> mask = {0, 1, 1, 0, 0, 1, 0, 1, 1, 1};
  {  // closed before the file is made anew
    const TokenFile set(make("f.attrs['checks_block']=3; "
                             "f['loss_mask']=np.array([0,1,1,0,0,1,0,1,1,1],dtype=np.uint8)"),
                        100);
    TargetScan scan(set);
    for (std::int64_t begin = 0; begin <= 10; ++begin) {
      for (std::int64_t end = begin; end <= 10; ++end) {
        EXPECT_EQ(scan.count(begin, end), std::count(mask.begin() + begin, mask.begin() + end, 1));
      }
    }
  }
  const TokenFile damaged(make("f.attrs['checks_block']=5; f['loss_mask']=np.ones(10,dtype="
                               "np.uint8); f['checks/loss_mask']=np.array([1,2],dtype=np.uint32)"),
                          100);
  EXPECT_THROW(TargetScan(damaged).count(7, 8), Error);
}

constexpr const char* kPrompts =
    "g=f.create_group('prompts'); g['texts/bytes']=np.frombuffer(b'Ask me: x',dtype=np.uint8); "
    "g['texts/offsets']=np.array([0,7,9],dtype=np.int64); "
    "g['ids']=np.array([5,6,99],dtype=np.uint32); "
    "g['offsets']=np.array([0,2,3],dtype=np.int64); ";

TEST_F(TokenFileTest, PromptsAreThoseOfTheFile) {
  const TokenFile set(make(kPrompts), 100);
  EXPECT_EQ(set.encode_prompt("Ask me:"), (std::vector<std::int32_t>{5, 6}));
  EXPECT_EQ(set.encode_prompt(" x"), (std::vector<std::int32_t>{99}));
  for (const char* unknown : {"Ask me", "Ask me: x", "x"}) {
    try {
      static_cast<void>(set.encode_prompt(unknown));
      ADD_FAILURE() << unknown;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput);
      EXPECT_NE(std::string(error.what()).find("--prompt"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(static_cast<void>(set.encode_prompt("")), Error);
}

TEST_F(TokenFileTest, ByteLevelSetsKnowEveryPrompt) {
  const TokenFile set(make("f.attrs['tokenizer_sha256']='bytes'; " + std::string(kPrompts)), 258);
  EXPECT_EQ(set.encode_prompt("a\xC3\xBC"), (std::vector<std::int32_t>{97, 0xC3, 0xBC}));
  EXPECT_EQ(set.encode_prompt(" x"), (std::vector<std::int32_t>{99}));  // as it was prepared
}

TEST_F(TokenFileTest, RefusesTextsThatDoNotHoldTogether) {
  const auto with = [](const char* change) { return std::string(kPrompts) + change; };
  expect_refusal(with("g['ids'][2]=100"), "id 100");
  expect_refusal(with("g['offsets'][...]=[0,2,4]"), "/prompts/offsets does not fit");
  expect_refusal(with("g['offsets'][...]=[0,3,3]"), "without ids");
  expect_refusal(with("g['texts/offsets'][...]=[0,7,8]"), "/prompts/texts/offsets does not fit");
  expect_refusal(with("g['texts/offsets'][...]=[7,0,9]"), "/prompts/texts/offsets does not fit");
  expect_refusal(with("del g['texts/offsets']; g['texts/offsets']=np.array([0,9],dtype=np.int64)"),
                 "1 texts for 2");
  expect_refusal(with("del g['texts']"), "0 texts for 2");
  expect_refusal(with("del g['ids']"), "/prompts/ids is missing");
  const std::string table =
      "g=f.create_group('vocabulary'); g['bytes']=np.zeros(3,dtype=np.uint8); ";
  expect_refusal(table + "g['offsets']=np.array([0,2,1,3],dtype=np.int64)", "/vocabulary/offsets");
  expect_refusal(table + "g['offsets']=np.array([0,4],dtype=np.int64)", "/vocabulary/offsets");
  expect_refusal(table + "g['offsets']=np.zeros(0,dtype=np.int64)", "/vocabulary/offsets");
}

TEST_F(TokenFileTest, NeverLeavesTheFile) {
  expect_refusal("del f['tokens']; f['tokens']=h5py.ExternalLink('other.h5','/tokens')",
                 "link to another place");
  expect_refusal("del f['tokens']; f['tokens']=h5py.SoftLink('/offsets')", "link to another place");
  expect_refusal(
      "del f['tokens']; f.create_dataset('tokens',(10,),np.uint16,external=[('/etc/passwd',0,20)])",
      "in another file");
  expect_refusal(
      "del f['tokens']; l=h5py.VirtualLayout((10,),np.uint16); "
      "l[:]=h5py.VirtualSource('o.h5','x',(10,)); f.create_virtual_dataset('tokens',l)",
      "virtual");
  expect_refusal(
      "del f['tokens']; f.create_dataset('tokens',(1<<40,),np.uint16,chunks=(1<<16,)); "
      "f['offsets'][...]=[0,4,1<<40]",
      "damaged");
}

TEST_F(TokenFileTest, RefusesTruncatedFiles) {
  const auto path = make(
      "del f['tokens']; f['tokens']=np.arange(20000,dtype=np.uint16)%90; "
      "f['offsets'][...]=[0,4,20000]");
  fs::resize_file(path, fs::file_size(path) - 1000);
  EXPECT_THROW(TokenFile(path, 100), Error);
  std::ofstream(folder_ / "text.h5") << "no HDF5 at all";
  EXPECT_THROW(TokenFile(folder_ / "text.h5", 100), Error);
  EXPECT_THROW(TokenFile(folder_ / "missing.h5", 100), Error);
}

TEST_F(TokenFileTest, ChecksumsOfTheWriterAgree) {
  const TokenFile set(
      make("f.attrs['checks_block']=4; "
           "f['checks/tokens']=np.array([zlib.crc32(t[i:i+4].tobytes()) for i in "
           "(0,4,8)],dtype=np.uint32); "
           "f['checks/"
           "offsets']=np.array([zlib.crc32(f['offsets'][...].tobytes())],dtype=np.uint32)"),
      100);
  std::vector<std::int32_t> ids(10);
  set.read_tokens(0, ids);
  EXPECT_EQ(ids[9], 9);
}

}  // namespace
}  // namespace lorascale::data
