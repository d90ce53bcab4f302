#include "prepare/preparation.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/error.hpp"
#include "prepare/preparer.hpp"
#include "support.hpp"

namespace lorascale::prepare {
namespace {

namespace fs = std::filesystem;

bool always() {
  return true;
}

// A stand-in for Python that notes its arguments, reports, and makes the files it is asked for.
constexpr const char* kStandIn = R"(#!/bin/sh
for word in "$@"; do echo "$word"; done > "$0.arguments"
echo x >> "$0.runs"
echo "prepare_text: warning: 3 odd records" >&2
echo "progress: 50%" >&2
for word in "$@"; do
  case "$word" in --output=*|--validation=*) echo data > "${word#*=}"; echo "made -> ${word#*=}";; esac
done
exit $(cat "$0.code" 2>/dev/null || echo 0)
)";

class PreparationTest : public InFolder {
 protected:
  void SetUp() override {
    InFolder::SetUp();
    python_ = write("python", kStandIn).string();
    ::chmod(python_.c_str(), 0755);
    write("model/config.json", R"({"vocab_size": 258})");
    config_.model.path = (folder_ / "model").string();
    config_.run.output_dir = (folder_ / "runs/a").string();
    config_.data.train = write("texts/a.txt", "one").string();
  }
  DataFiles run() const {
    return prepare(config_, always, [this](const PythonSearch&) { return python_; });
  }
  [[nodiscard]] std::vector<std::string> lines(const std::string& name) const {
    std::vector<std::string> found;
    std::ifstream file(folder_ / name);
    for (std::string line; std::getline(file, line);) {
      found.push_back(line);
    }
    return found;
  }
  std::string refusal(ExitCode code) const {
    try {
      run();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "not refused";
    return "";
  }

  std::string python_;
  config::RunConfig config_;
};

TEST_F(PreparationTest, TokenFilesAreLeftAlone) {
  config_.data.train = write("a.h5", "x").string();
  config_.data.validation = (folder_ / "nowhere.h5").string();
  const auto files = run();
  EXPECT_EQ(files.train, config_.data.train);
  EXPECT_EQ(files.validation, fs::path(*config_.data.validation));
  EXPECT_TRUE(files.records.empty());
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(PreparationTest, WorksBesideTheRunFolderOnce) {
  const auto files = run();
  EXPECT_EQ(files.train.filename(), "train.h5");
  EXPECT_EQ(files.train.parent_path().parent_path(), folder_ / "runs/prepared");
  EXPECT_TRUE(fs::exists(files.train));
  EXPECT_FALSE(files.validation);
  const auto& record = files.records.at("data.train");
  EXPECT_EQ(record["warnings"][0], "3 odd records");
  EXPECT_EQ(record["report"][0], "made -> " + files.train.string());  // the name it has now
  EXPECT_NE(record["command"].get<std::string>().find(files.train.string()), std::string::npos);
  config_.run.output_dir = (folder_ / "runs/another/").string();
  EXPECT_EQ(run().train, files.train);
  EXPECT_EQ(lines("python.runs").size(), 1U);
}

TEST_F(PreparationTest, ContentsAndSettingsMakeItAnother) {
  std::vector<fs::path> made = {run().train};
  const auto expect_new = [&](const std::string& what) {
    const auto train = run().train;
    EXPECT_EQ(std::count(made.begin(), made.end(), train), 0) << what;
    made.push_back(train);
  };
  write("texts/a.txt", "two");
  expect_new("contents");
  write("model/chat_template.jinja", "unused by bytes");
  EXPECT_EQ(run().train, made.back());
  config_.data.prepare.text_split = "paragraph";
  expect_new("text_split");
  config_.sample.prompts = {"-x"};
  expect_new("prompts");
  config_.data.prepare.validation_fraction = 0.25;
  expect_new("validation_fraction");
  write("model/tokenizer.json", "{}");
  expect_new("tokenizer");
  write("model/chat_template.jinja", "changed");
  expect_new("template");
  write("texts/a.txt", "one");
  config_ = config::RunConfig(config_);
  config_.data.prepare.text_split = "document";
  config_.data.prepare.validation_fraction = 0;
  config_.sample.prompts = {};
  fs::remove(folder_ / "model/tokenizer.json");
  EXPECT_EQ(run().train, made.front());
}

// The model's own template is taken for chats alone, the same file named for every question.
TEST_F(PreparationTest, ATemplateThatIsNamedIsNotTheOneThatIsFound) {
  write("model/tokenizer.json", "{}");
  const auto file = write("model/chat_template.jinja", "{{ messages }}");
  std::vector<fs::path> made = {run().train};
  config_.data.prepare.chat_template = file.string();
  made.push_back(run().train);
  EXPECT_EQ(lines("python.arguments")[3], "--chat-template=" + file.string());
  config_.data.prepare.chat_template = "llama3";
  fs::create_directories(folder_ / "llama3");
  const auto before = fs::current_path();
  fs::current_path(folder_);
  made.push_back(run().train);
  fs::current_path(before);
  config_.data.prepare.chat_template = "auto";
  write("model/additional_chat_templates/tool_use.jinja", "{{ tools }}");
  made.push_back(run().train);
  std::sort(made.begin(), made.end());
  EXPECT_EQ(std::unique(made.begin(), made.end()), made.end());
}

TEST_F(PreparationTest, NamesThatAreNoUtf8AreTaken) {
  config_.data.train = (folder_ / "texts").string();
  write("texts/gr\xFC\xDF.txt", "two");
  EXPECT_TRUE(fs::exists(run().train));
}

TEST_F(PreparationTest, WhatSomebodyDeletedIsMadeAnew) {
  const auto train = run().train;
  fs::remove(train);
  EXPECT_EQ(run().train, train);
  EXPECT_TRUE(fs::exists(train));
  EXPECT_EQ(lines("python.runs").size(), 2U);
}

TEST_F(PreparationTest, EarlyStoppingOnNothingIsRefused) {
  config_.data.train = write("a.h5", "x").string();
  config_.data.prepare.validation_fraction = 0.1;
  run();
  config_.evaluate.early_stop.patience = 3;
  EXPECT_NE(refusal(ExitCode::kBadConfig).find("early_stop needs a validation set"),
            std::string::npos);
}

TEST_F(PreparationTest, AMovedFolderIsTheSameSet) {
  config_.data.train = (folder_ / "texts").string();
  const auto before = run().train.parent_path().filename().string();
  fs::rename(folder_ / "texts", folder_ / "moved");
  config_.data.train = (folder_ / "moved").string();
  const auto after = run().train.parent_path().filename().string();
  EXPECT_EQ(before.substr(before.rfind('-')), after.substr(after.rfind('-')));
}

TEST_F(PreparationTest, EverySettingReachesTheScript) {
  auto& prepare = config_.data.prepare;
  prepare.tokenizer = (folder_ / "tok").string();
  prepare.chat_template = "chatml";
  prepare.chat_template_kwargs = R"({"a": 1})";
  prepare.default_system = "Be brief.";
  prepare.format = "messages";
  prepare.text_split = "lines:3";
  prepare.learn = "last";
  prepare.columns = {{"prompt", "q"}, {"completion", "a"}};
  prepare.ignore = {"weight", "loss"};
  prepare.max_length = 99;
  prepare.max_records = 7;
  prepare.turns = "apart";
  prepare.validation_fraction = 0.125;
  prepare.deduplicate = false;
  prepare.skip_bad = true;
  prepare.cache = (folder_ / "kept").string();
  config_.sample.prompts = {"--odd one"};
  const auto files = run();
  EXPECT_EQ(files.train.parent_path().parent_path(), folder_ / "kept");
  EXPECT_EQ(files.validation, files.train.parent_path() / "validation.h5");
  auto words = lines("python.arguments");
  ASSERT_GT(words.size(), 3U);
  EXPECT_TRUE(words[0].ends_with("scripts/prepare_text.py")) << words[0];
  EXPECT_TRUE(fs::exists(words[0]));
  EXPECT_EQ(words[1], config_.data.train);
  words.erase(words.begin(), words.begin() + 2);
  std::erase_if(words, [](const auto& word) {
    return word.starts_with("--output=") || word.starts_with("--validation=");
  });
  EXPECT_EQ(words, (std::vector<std::string>{
                       "--tokenizer=" + prepare.tokenizer, "--chat-template=chatml",
                       "--chat-template-kwargs={\"a\": 1}", "--default-system=Be brief.",
                       "--format=messages", "--text-split=lines:3", "--learn=last", "--turns=apart",
                       "--columns=completion=a,prompt=q", "--ignore=weight,loss", "--max-length=99",
                       "--max-records=7", "--no-dedup", "--skip-bad", "--prompt=--odd one",
                       "--validation-fraction=0.125"}));
}

TEST_F(PreparationTest, ValidationIsPreparedByItself) {
  config_.data.validation = write("v.jsonl", "{}").string();
  const auto files = run();
  EXPECT_NE(files.train.parent_path(), files.validation->parent_path());
  EXPECT_EQ(files.validation->filename(), "validation.h5");
  EXPECT_TRUE(fs::exists(*files.validation));
  EXPECT_TRUE(files.records.contains("data.validation"));
}

TEST_F(PreparationTest, SeveralPathsArePreparedTogether) {
  config_.data.more_train = {write("b.jsonl", "{}").string()};
  run();
  EXPECT_EQ(lines("python.arguments")[2], config_.data.more_train[0]);
  config_.data.more_train.push_back(write("c.h5", "x").string());
  EXPECT_NE(refusal(ExitCode::kBadInput).find("c.h5 is prepared already"), std::string::npos);
}

TEST_F(PreparationTest, CodesOfTheScriptAreKept) {
  const std::pair<const char*, ExitCode> cases[] = {{"64", ExitCode::kBadConfig},
                                                    {"65", ExitCode::kBadInput},
                                                    {"73", ExitCode::kCannotWrite},
                                                    {"1", ExitCode::kInternal}};
  for (const auto& [code, expected] : cases) {
    write("python.code", code);
    EXPECT_NE(refusal(expected).find("data.train"), std::string::npos);
    for (const auto& entry : fs::directory_iterator(folder_ / "runs/prepared")) {
      EXPECT_TRUE(entry.path().filename().string().ends_with(".lock")) << entry.path();
    }
  }
  write("python.code", "0");
  EXPECT_TRUE(fs::exists(run().train));
}

TEST_F(PreparationTest, WithoutPythonItNamesTheCommand) {
  try {
    prepare(config_, always, [](const PythonSearch& search) -> std::optional<std::string> {
      EXPECT_EQ(search.modules, (std::vector<std::string>{"h5py", "numpy"}));
      return std::nullopt;
    });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
    const std::string text = error.what();
    for (const char* part : {"LORASCALE_PYTHON", "python3 ", "prepare_text.py", "texts/a.txt",
                             "--tokenizer=bytes", "--output=data/train.h5", "set data.train"}) {
      EXPECT_NE(text.find(part), std::string::npos) << part << ": " << text;
    }
  }
}

TEST_F(PreparationTest, AModelWithoutTokenizerNeedsOneNamed) {
  write("model/config.json", R"({"vocab_size": 32000})");
  EXPECT_NE(refusal(ExitCode::kBadConfig).find("data.prepare.tokenizer"), std::string::npos);
}

TEST_F(PreparationTest, DifferencesAreNamed) {
  config_.data.train = (folder_ / "texts").string();
  write("texts/gone.txt", "x");
  const auto before = run().records.at("data.train");
  EXPECT_EQ(difference(before, before), "");
  config_.sample.prompts = {"The", "--no-dedup"};
  const auto prompted = run().records.at("data.train");
  EXPECT_NE(prompted, before);
  EXPECT_EQ(difference(before, prompted), "");
  fs::remove(folder_ / "texts/gone.txt");
  write("texts/a.txt", "changed");
  write("texts/new.txt", "y");
  config_.data.prepare.max_length = 10;
  EXPECT_EQ(difference(before, run().records.at("data.train")),
            "a.txt changed, new.txt is new, gone.txt is gone, data.prepare changed");
}

}  // namespace
}  // namespace lorascale::prepare
