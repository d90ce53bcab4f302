#include "adapters/formats/peft.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "adapters/small_model.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

namespace fs = std::filesystem;
using lorascale::test::noise;
using lorascale::test::same_bits;
using testing::HasSubstr;

// Layers of a model with an adapter that has been trained: nothing in it is zero.
struct Trained {
  test::SmallModel layers;
  AdaptedModel model = layers.adapted();
  LoraSettings settings;
  std::vector<LoraModule> modules;
  std::unique_ptr<TrainableParameters> parameters;

  explicit Trained(LoraSettings chosen) : settings(std::move(chosen)) {
    modules = match_lora_targets(model, settings);
    parameters = attach_lora(modules, settings, 1);
    at::Tensor(parameters->master()).copy_(noise({parameters->size()}, 5));
  }
};

// Ranks and alphas that differ between layers, one of them a convolution.
LoraSettings mixed() {
  LoraSettings settings;
  settings.rank = 3;
  settings.alpha = 6;
  settings.dropout = 0.25;
  settings.rslora = true;
  settings.targets = {"q_proj", "v_proj", "conv"};
  settings.rank_pattern = {{"v_proj", 2}};
  settings.alpha_pattern = {{"layers.1.q_proj", 0.5}};
  return settings;
}

LoraSettings plain(const std::vector<std::string>& targets, std::int64_t rank = 2) {
  LoraSettings settings;
  settings.rank = rank;
  settings.targets = targets;
  return settings;
}

class PeftTest : public testing::Test {
 protected:
  PeftTest() { fs::create_directories(folder_.parent_path()); }
  ~PeftTest() override { fs::remove_all(folder_.parent_path()); }

  void write(const Trained& trained, const ExportContext& context = {"bases/Small", "", {}, {}}) {
    write_peft_adapter(folder_, trained.modules, trained.model.sites, trained.settings,
                       *trained.parameters, context);
  }
  nlohmann::json config() { return nlohmann::json::parse(std::ifstream(folder_ / kPeftConfig)); }
  // The folder again with other values in its config.
  void edit(const nlohmann::json& changes) {
    auto json = config();
    json.update(changes);
    std::ofstream(folder_ / kPeftConfig) << json.dump();
  }
  std::string refusal_to_read() {
    try {
      read_peft_adapter(folder_);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput) << error.what();
      return error.what();
    }
    return "read";
  }

  fs::path folder_ =
      fs::path(testing::TempDir()) / ("peft_" + std::to_string(::getpid())) / "adapter";
};

// What is read changes every layer as what was trained does: s B A, computed here in fp64.
TEST_F(PeftTest, ReadsBackWhatWasTrained) {
  const Trained trained(mixed());
  write(trained);
  const auto adapter = read_peft_adapter(folder_);
  const std::vector<double> scales = {6 / std::sqrt(3.0), 6 / std::sqrt(2.0), 0.5 / std::sqrt(3.0),
                                      6 / std::sqrt(3.0)};
  ASSERT_EQ(trained.modules.size(), scales.size());
  ASSERT_EQ(adapter.modules.size(), scales.size());
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const auto& site = trained.modules[i].site;
    const auto& read = adapter.modules.at(site.name);
    const auto [a, b] = matrices_of(*trained.parameters, trained.parameters->master(), 4, i);
    EXPECT_TRUE(same_bits(read.a.flatten(1), a)) << site.name;
    EXPECT_TRUE(same_bits(read.b.flatten(1), b)) << site.name;
    const at::Tensor change = at::mm(b.to(at::kDouble), a.to(at::kDouble)) * scales[i];
    lorascale::test::expect_close(read.low_rank_change(), change.view(site.weight.sizes()), 1e-6,
                                  site.name);
  }
  EXPECT_EQ(adapter.settings.rank, 3);
  EXPECT_EQ(adapter.settings.alpha, 6);
  EXPECT_EQ(adapter.settings.dropout, 0.25);
  EXPECT_TRUE(adapter.settings.rslora);
}

TEST_F(PeftTest, SaysInTheFileWhatPeftNeeds) {
  write(Trained(mixed()), {folder_.parent_path() / "Base", "CAUSAL_LM", {}, {}});
  const auto json = config();
  EXPECT_EQ(json["peft_type"], "LORA");
  EXPECT_EQ(json["task_type"], "CAUSAL_LM");
  EXPECT_EQ(json["base_model_name_or_path"], (folder_.parent_path() / "Base").string());
  EXPECT_TRUE(json["revision"].is_null());
  EXPECT_EQ(json["r"], 3);
  EXPECT_TRUE(json["lora_alpha"].is_number_integer());
  EXPECT_EQ(json["lora_alpha"], 6);
  EXPECT_EQ(json["use_rslora"], true);
  EXPECT_EQ(json["rank_pattern"], nlohmann::json({{"model.layers.0.v_proj", 2}}));
  EXPECT_EQ(json["alpha_pattern"], nlohmann::json({{"model.layers.1.q_proj", 0.5}}));
  write(Trained(plain({"v_proj"})));
  EXPECT_TRUE(config()["task_type"].is_null()) << "a kind that peft has no name for";
  EXPECT_EQ(config()["rank_pattern"], nlohmann::json::object());
}

// Short names where they mean exactly the layers that are adapted.
TEST_F(PeftTest, NamesTargetsInFullWhereTheirEndsWouldMeanMore) {
  const auto targets = [&](const std::vector<std::string>& chosen) {
    write(Trained(plain(chosen)));
    return config()["target_modules"].get<std::vector<std::string>>();
  };
  EXPECT_THAT(targets({"q_proj", "conv"}), testing::UnorderedElementsAre("q_proj", "conv"));
  EXPECT_THAT(targets({"layers.0.q_proj", "v_proj"}),
              testing::UnorderedElementsAre("model.layers.0.q_proj", "model.layers.0.v_proj"));
}

// peft asks of every part of a model, also of those that only hold others, whether it ends so.
TEST_F(PeftTest, NamesTargetsSoThatNoOtherPartIsTakenForOne) {
  const auto targets = [&](const std::string& name) {
    Trained trained(plain({"conv"}));
    trained.modules.front().site.name = trained.model.sites.back().name = name;
    write(trained);
    return config()["target_modules"];
  };
  EXPECT_EQ(targets("model.layers.0.downsample.3"), nlohmann::json({"3"}));
  EXPECT_EQ(targets("model.layers.0.downsample.0"),
            nlohmann::json({"model.layers.0.downsample.0"}));
  EXPECT_EQ(targets("q_proj"), "q_proj") << "an expression, which a list would not be";
  EXPECT_EQ(targets("0.q_proj"), "0\\.q_proj");
}

TEST_F(PeftTest, KeepsTheTokenThatEndsAnswersInTheMetadata) {
  const Trained trained(plain({"v_proj"}));
  write(trained);
  EXPECT_EQ(read_peft_adapter(folder_).answer_end_id, -1);
  for (const auto& [text, id] : {std::pair{"42", 42}, {"0", 0}, {"-7", -1}, {"4x", -1}}) {
    write(trained, {"bases/Small", "", {{kAnswerEnd, text}}, {}});
    EXPECT_EQ(read_peft_adapter(folder_).answer_end_id, id) << text;
  }
}

// What a run that goes on takes attaches the same layers, as the adapter's file has them.
TEST_F(PeftTest, GivesSettingsThatAttachTheSameLayers) {
  const Trained trained(mixed());
  write(trained);
  const auto adapts = [&] {
    std::string text;
    const auto settings = settings_to_go_on(read_peft_adapter(folder_));
    EXPECT_EQ(settings.dropout, 0.25);
    for (const auto& module : match_lora_targets(trained.model, settings)) {
      text += fmt::format("{} {} {} {:.6f}\n", module.site.name, module.rank, module.alpha,
                          module.scale);
    }
    return text;
  };
  const std::string all =
      "model.layers.0.q_proj 3 6 3.464102\nmodel.layers.0.v_proj 2 6 4.242641\n"
      "model.layers.1.q_proj 3 0.5 0.288675\nmodel.stem.conv 3 6 3.464102\n";
  EXPECT_EQ(adapts(), all);
  EXPECT_THAT(settings_to_go_on(read_peft_adapter(folder_)).targets,
              testing::UnorderedElementsAre("q_proj", "v_proj", "conv"));
  edit({{"target_modules", {"q_proj", "v_proj", "conv", "lm_head"}}});  // one that adapts nothing
  EXPECT_EQ(adapts(), all);
  // Where the file's own cannot be meant literally, layers are named one by one.
  for (const auto& changes : std::vector<nlohmann::json>{
           {{"target_modules", ".*(proj|conv)"}},
           {{"target_modules", {"q_proj"}}},
           {{"target_modules", {"q_proj", "proj"}}, {"layers_to_transform", {0, 1}}}}) {
    edit(changes);
    EXPECT_EQ(adapts(), all) << changes;
    EXPECT_EQ(settings_to_go_on(read_peft_adapter(folder_)).targets.size(), 4U) << changes;
  }
}

// A stem's "conv1" is also how the names of other layers end.
TEST_F(PeftTest, ALayerWhoseNameEndsOthersIsTheOneThatIsMeant) {
  const auto layers = std::make_unique<test::SmallModel>();
  auto model = layers->adapted();
  model.sites[0].name = "conv1";
  model.sites[1].name = "layer1.0.conv1";
  LoraSettings settings = plain({"conv1"});
  settings.rank_pattern = {{"^conv1", 4}};
  settings.alpha_pattern = {{"^conv1", 3}};
  const auto written_and_read = [&] {
    const auto modules = match_lora_targets(model, settings);
    const auto parameters = attach_lora(modules, settings, 1);
    at::Tensor(parameters->master()).copy_(noise({parameters->size()}, 5));
    write_peft_adapter(folder_, modules, model.sites, settings, *parameters,
                       {"bases/Small", "", {}, {}});
    const auto adapter = read_peft_adapter(folder_);
    const auto again = match_lora_targets(model, settings_to_go_on(adapter));
    const auto to_fill = attach_lora(again, settings, 2);
    load_peft_adapter(adapter, again, *to_fill);
    EXPECT_TRUE(lorascale::test::same_bits(to_fill->master(), parameters->master()));
    std::string text;
    for (const auto& module : again) {
      text += fmt::format("{} {} {} ", module.site.name, module.rank, module.alpha);
    }
    return text;
  };
  EXPECT_EQ(written_and_read(), "conv1 4 3 layer1.0.conv1 2 16 ");
  EXPECT_EQ(config()["rank_pattern"], nlohmann::json({{"^conv1", 4}}));
  settings = plain({"^conv1"});
  EXPECT_EQ(written_and_read(), "conv1 2 16 ");
}

TEST_F(PeftTest, LoadsOnlyWhatFitsLayerByLayer) {
  const Trained source(plain({"q_proj", "v_proj"}));
  write(source);
  const auto adapter = read_peft_adapter(folder_);
  const auto load = [&](Trained&& target) -> std::string {
    const at::Tensor before = target.parameters->master().clone();
    try {
      load_peft_adapter(adapter, target.modules, *target.parameters);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::StartsWith("adapter.init_from " + folder_.string()));
      return error.what();
    }
    EXPECT_TRUE(same_bits(target.parameters->master(), source.parameters->master()));
    return "loaded";
  };
  auto same = plain({"v_proj", "model.layers.1.q_proj", "layers.0.q_proj"});
  EXPECT_EQ(load(Trained(same)), "loaded");
  EXPECT_THAT(load(Trained(plain({"q_proj"}))), HasSubstr("adapts 3 layers, the config 2"));
  EXPECT_THAT(load(Trained(plain({"q_proj", "up_proj"}))),
              HasSubstr("has no model.layers.0.up_proj"));
  EXPECT_THAT(load(Trained(plain({"q_proj", "v_proj"}, 4))),
              HasSubstr("model.layers.0.q_proj has rank 2 there"));
  same.alpha = 8;
  EXPECT_THAT(load(Trained(same)), HasSubstr("is scaled by 8.000000 there, by 4.000000 here"));
}

TEST_F(PeftTest, RefusesAnAdapterOfOtherShapes) {
  const Trained source(plain({"v_proj"}));
  write(source);
  auto adapter = read_peft_adapter(folder_);
  Trained target(plain({"v_proj"}));
  auto& module = adapter.modules.begin()->second;
  module.b = noise({6, 2}, 3);
  try {
    load_peft_adapter(adapter, target.modules, *target.parameters);
    ADD_FAILURE() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
    EXPECT_THAT(error.what(), HasSubstr("model.layers.0.v_proj does not fit this model's shape; it "
                                        "was made for '" +
                                        adapter.base_model));
  }
}

// The rounded copies that a 16-bit model computes with are those of what was loaded.
TEST_F(PeftTest, LoadsInto16BitModels) {
  const Trained source(plain({"up_proj"}));
  write(source);
  test::SmallModel layers(at::kBFloat16);
  const auto settings = plain({"up_proj"});
  const auto modules = match_lora_targets(layers.adapted(), settings);
  const auto parameters = attach_lora(modules, settings, 1);
  const auto adapter = read_peft_adapter(folder_);
  load_peft_adapter(adapter, modules, *parameters);
  const auto& read = adapter.modules.at("model.layers.0.up_proj");
  const auto rounded = [](const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kDouble); };
  lorascale::test::expect_close(layers.up.deltas[0].weight_change(layers.up.weight),
                                at::mm(rounded(read.b), rounded(read.a)) * read.scale, 1e-6);
}

TEST_F(PeftTest, RefusesWhatCannotBeAppliedFaithfully) {
  const Trained trained(plain({"q_proj"}));
  for (const auto& [changes, message] : std::vector<std::pair<nlohmann::json, std::string>>{
           {{{"lora_dropout", 0.5}}, "read"},
           {{{"use_dora", true}}, "use_dora"},
           {{{"fan_in_fan_out", true}}, "fan_in_fan_out"},
           {{{"bias", "all"}}, "bias"},
           {{{"modules_to_save", {"lm_head"}}}, "modules_to_save"},
           {{{"peft_type", "LOHA"}}, "is neither LORA nor IA3"},
           {{{"init_lora_weights", "PiSSA_niter_4"}}, "base model changed by it"},
           {{{"init_lora_weights", "gaussian"}}, "read"},
           {{{"lora_bias", true}}, "lora_bias"},
           {{{"r", 4}}, "model.layers.0.q_proj has rank 2 where"},
           {{{"rank_pattern", {{"1.q_proj", 4}}}}, "model.layers.1.q_proj has rank 2 where"},
           {{{"alpha_pattern", {{"q_proj", -1}}}}, "is no number above 0"}}) {
    write(trained);
    edit(changes);
    EXPECT_THAT(refusal_to_read(), HasSubstr(message)) << changes;
  }
}

}  // namespace
}  // namespace lorascale::adapters
