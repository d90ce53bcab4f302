// RunConfig: every setting of a run, typed, with its default. One struct per YAML section; a member
// is named as its key. Filled once (default < file < --set), validated, then never changed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/units.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::config {

enum class Resume { kAuto, kNever };
enum class Reduction { kFast, kExact };
enum class Device { kAuto, kCpu, kCuda };
enum class Share { kAuto, kNode, kNone };
enum class OnResize { kHold, kRescale };
enum class OptimizerName { kAdamW, kSgd, kLamb, kLars };
enum class Average { kNone, kEma, kSwa };
enum class OnDivergence { kStop, kRecover };

struct RunSection {
  std::string output_dir = "runs/default";
  std::uint64_t seed = 0;
  Resume resume = Resume::kAuto;
  Reduction reduction = Reduction::kFast;
  Device device = Device::kAuto;
  std::int64_t threads = 0;  // CPU threads per rank; 0 = the cores of the node shared by its ranks
  double deadline_seconds = 120;  // how long a silent peer or a stuck step is waited for
};
// A residual network that begins untrained (models/vision/resnet_config.hpp).
struct ResNetSection {
  std::string block = "basic";  // basic | bottleneck
  std::vector<std::int64_t> layers = {2, 2, 2, 2};
  std::int64_t width = 64;
  std::string norm = "batch";  // batch | group | none
  std::int64_t groups = 32;
  std::int64_t ghost_batch = 0;
  std::string stem = "small";  // small | large
};
// What trains of a model that makes pictures: UNet and text encoders, or the autoencoder.
enum class ModelPart { kDenoiser, kAutoencoder };
struct ModelSection {
  std::string path;                         // empty where an architecture begins untrained
  std::optional<std::string> architecture;  // resnet
  ResNetSection resnet;
  std::string dtype = "auto";  // auto (as stored) | bf16 | fp16 | fp32
  bool recompute = false;      // recompute blocks in backward instead of keeping their activations
  Share share = Share::kAuto;
  // Of models that make pictures.
  ModelPart part = ModelPart::kDenoiser;
  std::optional<std::string> vae;         // an autoencoder in place of the model's own
  std::optional<std::string> prediction;  // epsilon | v; absent: as the model says
  std::int64_t clip_skip = 0;             // layer of the text encoders from the end; 0: the model's
  std::optional<std::string> tokenizer;   // of prompts; absent: the model's own
};
// A word of prompts that the text encoders learn (textual inversion).
struct TokenSection {
  std::optional<std::string> word;  // as captions have it; absent: none
  std::int64_t vectors = 1;
  std::optional<std::string> init;  // words whose embeddings it begins with; absent: random
  double lr_ratio = 1.0;            // of the run's rate
};
struct AdapterSection {
  std::string type = "lora";  // lora | ia3 | token | full
  std::int64_t rank = 8;
  double alpha = 16.0;
  double dropout = 0.0;             // of what goes into A
  double rank_dropout = 0.0;        // of what comes out of A
  double module_dropout = 0.0;      // of whole layers' adapters
  double scale_weight_norms = 0.0;  // most that a layer's change may measure; 0: no limit
  bool rslora = false;              // scale by alpha / sqrt(rank) instead of alpha / rank
  bool dora = false;                // rows of the weights get lengths of their own
  double lr_ratio = 1.0;            // LoRA+: rate of B over rate of A
  // Suffixes ("q_proj"), or one entry that is "all-linear" or a regular expression matched in full.
  std::vector<std::string> targets = {"q_proj", "v_proj"};
  // Suffixes of targets whose inputs IA3 scales: what leads out of a feed-forward.
  std::vector<std::string> feedforward = {"down_proj", "ff.net.2", "fc2"};
  std::map<std::string, std::int64_t> rank_pattern;  // suffix or regex -> rank
  std::map<std::string, double> alpha_pattern;       // suffix or regex -> alpha
  std::map<std::string, double> lr_pattern;          // suffix or regex -> part of the rate
  std::optional<std::string> init_from;              // PEFT adapter folder
  TokenSection token;

  // Whether the model's own weights are what is trained, not frozen.
  [[nodiscard]] bool trains_base() const { return type == "full"; }
};
// How data.train and data.validation become token files where they are none (prepare/).
struct PrepareSection {
  std::string tokenizer = "auto";  // folder, tokenizer.json, bytes; auto: the model's own
  std::string chat_template = "auto";
  std::optional<std::string> chat_template_kwargs;  // JSON
  std::optional<std::string> default_system;
  std::string format = "auto";                 // of the files
  std::string text_split = "document";         // what a document is in plain text
  std::string learn = "all";                   // all | last | everything
  std::string turns = "together";              // together | apart
  std::map<std::string, std::string> columns;  // what a record holds -> its key in the files
  std::vector<std::string> ignore;             // keys of records that are not needed
  std::optional<std::int64_t> max_length;      // documents are cut to it, in tokens
  std::optional<std::int64_t> max_records;     // of each file the first ones
  double validation_fraction = 0;              // share of the documents split off
  bool deduplicate = true;
  bool skip_bad = false;
  std::optional<std::string> cache;   // folder; absent: `prepared` beside the run folder
  std::optional<std::string> python;  // interpreter; absent: looked for
};
// Changes of pictures in training.
struct AugmentSection {
  bool flip = false;        // left and right, half of them
  std::int64_t shift = 0;   // pixels, at most, in each direction
  bool crop = false;        // anywhere within a picture that is larger than its bucket
  double color_jitter = 0;  // brightness, contrast and saturation change by at most this share
};
// Captions of pictures in training.
struct CaptionSection {
  bool shuffle = false;          // tags between commas
  std::int64_t keep = 0;         // of them that stay as they are
  double dropout = 0;            // share of captions left out
  double tag_dropout = 0;        // share of tags left out
  std::int64_t max_tokens = 75;  // 75, 150 or 225
};
// Results of a model's frozen parts, kept on disk from run to run.
struct CacheSection {
  bool enabled = true;
  std::optional<std::string> folder;  // absent: cache/ beside run.output_dir
};
struct DataSection {
  // YAML key: train, a path or a list of them.
  std::string train;
  std::vector<std::string> more_train;
  std::optional<std::string> validation;
  PrepareSection prepare;
  AugmentSection augment;
  CaptionSection caption;
  CacheSection cache;
  bool masked = false;  // errors count by the pictures' masks
  bool shuffle = true;
  std::int64_t sequence_length = 512;
  std::optional<bool> packing;  // absent = auto
};
struct BatchSection {
  std::int64_t global = 16;
  std::optional<std::int64_t> per_rank;   // global, where it was given per rank, over the ranks
  std::optional<std::int64_t> reference;  // batch that optimizer.lr was tuned at; default: global
  std::optional<std::int64_t> micro;      // leaf size; absent = auto
  coordinator::BatchPolicyKind policy = coordinator::BatchPolicyKind::kFixed;
  std::optional<std::int64_t> increment;  // batches are multiples of it; absent: of global
  std::optional<std::int64_t> min;        // absent: global
  std::optional<std::int64_t> max;        // absent: an epoch
  std::int64_t min_steps = 100;           // B <= budget / this; 0 = off
  std::optional<Amount>
      dwell;  // between two changes; absent: noise.horizon where a policy needs it
  Amount ramp{0, Unit::kSamples};  // policy ramp: until max is reached
  double critical = 0;             // critical batch in samples; 0 = as measured
  double critical_fraction = 1;    // policy noise-scale: B <= this * critical batch
  OnResize on_resize = OnResize::kHold;
};
struct OptimizerSection {
  OptimizerName name = OptimizerName::kAdamW;
  double lr = 2e-4;
  double beta1 = 0.9;  // YAML key: betas: [beta1, beta2]
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  double clip_norm = 1.0;           // 0 = off
  double momentum = 0.0;            // of `sgd` and `lars`
  double trust_coefficient = 1e-3;  // of `lars`
  bool trust_ratio_lora_b = false;  // of `lamb` and `lars`: LoRA's B too
  // Adam's moments, in place of a momentum.
  [[nodiscard]] bool has_moments() const {
    return name == OptimizerName::kAdamW || name == OptimizerName::kLamb;
  }
  [[nodiscard]] bool has_trust_ratios() const {
    return name == OptimizerName::kLamb || name == OptimizerName::kLars;
  }
};
struct LossSection {
  double label_smoothing = 0.0;  // in training only
  // Of models that make pictures (models/diffusion/diffusion_model.hpp).
  std::optional<double> min_snr_gamma;
  bool debiased = false;
  bool scale_v_like_noise = false;
  double noise_offset = 0.0;
  double noise_offset_adaptive = 0.0;
  double input_perturbation = 0.0;
  bool zero_terminal_snr = false;
  double prior_weight = 1.0;  // of pictures for regularisation
  double kl = 1e-6;           // of ModelPart::kAutoencoder
};
struct AverageSection {
  Average name = Average::kNone;
  Amount half_life{0.05, Unit::kFraction};  // of `ema`
  Amount start{0.75, Unit::kFraction};      // of `swa`
};
struct ScaleSection {
  std::optional<coordinator::ScaleRule> rule;  // absent: sqrt for adamw and lamb, else linear
  double power = 0.5;                          // exponent of rule `power`
  bool betas = false;
  bool eps = false;
  bool weight_decay = false;
  Amount ramp{0, Unit::kSamples};  // the rate's way from old to new after a change of the batch
  bool cap = false;                // bend the rate at the critical batch
};
struct ScheduleSection {
  coordinator::ScheduleKind name = coordinator::ScheduleKind::kCosine;
  Amount warmup{0.03, Unit::kFraction};
  Amount decay{0.1, Unit::kFraction};  // last part of `wsd`
  double floor = 0.0;                  // fraction of the peak rate where the decay ends
};
struct CheckpointSection {
  Amount every{500, Unit::kSteps};
  std::int64_t keep = 3;
};
struct EarlyStopSection {
  std::int64_t patience = 0;  // validations without improvement; 0 = off
  double min_delta = 0.0;
};
struct EvaluateSection {
  Amount every{100, Unit::kSteps};
  std::int64_t max_samples = 0;  // 0 = the whole validation set
  EarlyStopSection early_stop;
};
struct SampleSection {
  Amount every{500, Unit::kSteps};
  std::vector<std::string> prompts;
  std::int64_t max_tokens = 128;
  double temperature = 0.0;  // 0 = greedy
  double top_p = 1.0;
  // Of models that make pictures.
  std::optional<std::string> negative;        // what prompts steer away from
  std::optional<std::int64_t> width, height;  // pixels; absent: as most pictures of the data
  std::int64_t steps = 20;
  double guidance = 7.5;
  std::string sampler = "ddim";   // ddim | euler | euler_a | dpmpp_2m_karras
  std::vector<double> strengths;  // of the adapter, each prompt beside itself at the end
};

struct NoiseSection {
  Amount horizon{0, Unit::kSamples};  // of its moving averages; 0 = not measured
};
struct DivergenceSection {
  OnDivergence action = OnDivergence::kStop;
  std::int64_t max_recoveries = 2;  // then it stops
  Amount warmup{50, Unit::kSteps};  // of the halved rate
};
struct MemorySection {
  std::int64_t budget_mib = 0;  // of tensors, per rank, on the CPU; 0 = no limit
};

struct RunConfig {
  RunSection run;
  ModelSection model;
  AdapterSection adapter;
  DataSection data;
  BatchSection batch;
  OptimizerSection optimizer;
  LossSection loss;
  AverageSection average;
  ScaleSection scale;
  ScheduleSection schedule;
  Amount budget{3, Unit::kEpochs};
  CheckpointSection checkpoint;
  EvaluateSection evaluate;
  SampleSection sample;
  NoiseSection noise;
  DivergenceSection divergence;
  MemorySection memory;
  bool advice = true;               // coordinator/advisor.hpp
  std::vector<std::string> faults;  // train/faults.hpp
};

}  // namespace lorascale::config
