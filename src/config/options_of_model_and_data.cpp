// What is trained, on what.
#include "config/option_adding.hpp"

namespace lorascale::config {
namespace {

void add_run(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::run, member); };
  add(t, "run.output_dir", at(&RunSection::output_dir), PathKind{"folder"},
      "Run folder: resolved configuration, metrics, checkpoints and the final adapter.",
      kMayChange);
  add(t, "run.seed", at(&RunSection::seed), SeedKind{},
      "Seed of data order, initialisation and dropout; same seed, same run, on any number of "
      "ranks.");
  add(t, "run.resume", at(&RunSection::resume),
      choice<Resume>({{"auto", Resume::kAuto}, {"never", Resume::kNever}}),
      "auto goes on from the newest checkpoint in output_dir, if there is one; never begins anew.",
      kMayChange);
  add(t, "run.reduction", at(&RunSection::reduction),
      choice<Reduction>({{"fast", Reduction::kFast}, {"exact", Reduction::kExact}}),
      "Order of summation: fast is the communication library's own; exact gives the same bits on "
      "any number of ranks (same leaf, same threads or GPU type), for more memory and traffic.");
  add(t, "run.device", at(&RunSection::device),
      choice<Device>({{"auto", Device::kAuto}, {"cpu", Device::kCpu}, {"cuda", Device::kCuda}}),
      "Where the model runs; auto takes a GPU per rank where there is one.", kMayChange);
  add(t, "run.threads", at(&RunSection::threads), IntegerKind{0, 4096},
      "CPU threads per rank; 0 shares the cores of a node among its ranks.", kMayChange);
  add(t, "run.deadline_seconds", at(&RunSection::deadline_seconds), RealKind{0, true, 1e6},
      "How long a silent rank or a stuck step is waited for before the run ends.", kMayChange);
}

void add_model(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::model, member); };
  add(t, "model.path", at(&ModelSection::path), PathKind{"folder or .safetensors file"},
      "The base model, in Hugging Face layout, or its weights' file beside config.json, or one "
      "file "
      "of Stable Diffusion; required, "
      "but for a model.architecture that begins untrained.",
      kMayChange);
  add(t, "model.dtype", at(&ModelSection::dtype), words({"auto", "bf16", "fp16", "fp32"}),
      "Type of the frozen weights and of the computation; auto is as stored.");
  add(t, "model.recompute", at(&ModelSection::recompute), BooleanKind{},
      "Recompute activations in the backward pass: less memory for about a third more time.",
      kMayChange);
  add(t, "model.share", at(&ModelSection::share),
      choice<Share>({{"auto", Share::kAuto}, {"node", Share::kNode}, {"none", Share::kNone}}),
      "Whether the ranks of a node hold the frozen weights once, in memory that they share: node "
      "insists, none is a copy for each rank; auto shares on CPUs where nothing trains them.",
      kMayChange);
  add(t, "model.part", at(&ModelSection::part),
      choice<ModelPart>(
          {{"denoiser", ModelPart::kDenoiser}, {"autoencoder", ModelPart::kAutoencoder}}),
      "What is trained: denoiser is UNet and text encoders, or adapters on them; autoencoder is "
      "the model's VAE, with adapter.type full.");
  add(t, "model.vae", at(&ModelSection::vae),
      OptionalKind<PathKind>{PathKind{"folder or .safetensors file"}},
      "An autoencoder in place of the model's own.", kMayChange);
  add(t, "model.prediction", at(&ModelSection::prediction),
      OptionalKind<ChoiceKind<std::string>>{words({"epsilon", "v"})},
      "What the model was trained to tell, where its files do not say so: the noise, or the "
      "velocity v.");
  add(t, "model.clip_skip", at(&ModelSection::clip_skip), IntegerKind{0, 12},
      "Captions are taken from this layer of the text encoders, counted from the end: 1 is the "
      "last one; 0: as the model has it.");
  add(t, "model.tokenizer", at(&ModelSection::tokenizer),
      OptionalKind<PathKind>{PathKind{"folder, tokenizer.json or vocabulary"}},
      "Of sample.prompts, where model.path is one file, which holds none.", kMayChange);
}

void add_resnet(std::vector<Option>& t) {
  add(t, "model.architecture", field(&RunConfig::model, &ModelSection::architecture),
      OptionalKind<ChoiceKind<std::string>>{words({"resnet"})},
      "In place of model.path: a model that begins untrained, its weights drawn from run.seed.");
  const auto at = [](auto member) {
    return field(&RunConfig::model, &ModelSection::resnet, member);
  };
  add(t, "model.resnet.block", at(&ResNetSection::block), words({"basic", "bottleneck"}),
      "Two convolutions of 3 x 3 a block, or three: 1 x 1, 3 x 3 and 1 x 1 to four times the "
      "width.");
  add(t, "model.resnet.layers", at(&ResNetSection::layers), IntegerListKind{1, 1000},
      "Blocks of each stage; each stage doubles the width and halves the sides of the first.");
  add(t, "model.resnet.width", at(&ResNetSection::width), IntegerKind{1, 1 << 14},
      "Channels of the first stage.");
  add(t, "model.resnet.norm", at(&ResNetSection::norm), words({"batch", "group", "none"}),
      "Normalisation after convolutions. batch takes its statistics over a leaf, so batch.micro "
      "must be given.");
  add(t, "model.resnet.groups", at(&ResNetSection::groups), IntegerKind{1, 1 << 14},
      "Groups of channels of norm group.");
  add(t, "model.resnet.ghost_batch", at(&ResNetSection::ghost_batch), IntegerKind{0, 1 << 20},
      "Samples that norm batch normalises together, a divisor of batch.micro; 0: the whole leaf.");
  add(t, "model.resnet.stem", at(&ResNetSection::stem), words({"small", "large"}),
      "First layers: 3 x 3 for pictures of some 32 pixels a side, 7 x 7 with pooling for some "
      "224.");
}

void add_adapter(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::adapter, member); };
  const IntegerKind rank{1, 65536};
  const RealKind positive{0, true};
  add(t, "adapter.type", at(&AdapterSection::type), words({"lora", "ia3", "token", "full"}),
      "lora trains low-rank factors; ia3 (Liu et al. 2022) a number for each output of a layer, "
      "which scales it; token the embeddings of adapter.token.word alone; full all weights.");
  add(t, "adapter.rank", at(&AdapterSection::rank), rank, "Rank r of the factors A and B.");
  add(t, "adapter.alpha", at(&AdapterSection::alpha), positive,
      "The update is scaled by alpha / rank.");
  add(t, "adapter.dropout", at(&AdapterSection::dropout), RealKind{0, false, 1, true},
      "Share of the adapter's inputs set to zero in training.");
  add(t, "adapter.rank_dropout", at(&AdapterSection::rank_dropout), RealKind{0, false, 1, true},
      "Share of the rank left out in training, of each adapted layer for each sample.");
  add(t, "adapter.module_dropout", at(&AdapterSection::module_dropout), RealKind{0, false, 1, true},
      "Share of adapted layers whose adapter is left out in training, for each sample.");
  add(t, "adapter.scale_weight_norms", at(&AdapterSection::scale_weight_norms), RealKind{0},
      "After each update, changes of layers whose norm |dW| is larger are made as small as this; 0 "
      "sets no limit.");
  add(t, "adapter.rslora", at(&AdapterSection::rslora), BooleanKind{},
      "Scale by alpha / sqrt(rank) instead.");
  add(t, "adapter.dora", at(&AdapterSection::dora), BooleanKind{},
      "DoRA (Liu et al. 2024): the rows of each adapted weight get lengths of their own beside "
      "LoRA. "
      "A tenth more time, or more.");
  add(t, "adapter.lr_ratio", at(&AdapterSection::lr_ratio), positive,
      "LoRA+: learning rate of B over that of A.");
  add(t, "adapter.targets", at(&AdapterSection::targets),
      TextListKind{false, "[q_proj, v_proj], all-linear or a regular expression"},
      "Layers that get an adapter: name endings, all-linear (all-layers: convolutions, too), or "
      "one "
      "expression for the whole "
      "name. Models that make pictures have another default: the transformers' layers and the text "
      "encoder's (docs/stable-diffusion.md); so has ia3: keys, values and the last layer of "
      "feed-forwards.");
  add(t, "adapter.feedforward", at(&AdapterSection::feedforward), TextListKind{true, "[down_proj]"},
      "Of adapter.type ia3: those of the targets whose inputs are scaled, not their outputs; name "
      "endings.");
  add(t, "adapter.rank_pattern", at(&AdapterSection::rank_pattern), MapKind<IntegerKind>{rank},
      "Other ranks for some targets, by name ending or expression.");
  add(t, "adapter.alpha_pattern", at(&AdapterSection::alpha_pattern), MapKind<RealKind>{positive},
      "Other alphas for some targets, by name ending or expression.");
  add(t, "adapter.lr_pattern", at(&AdapterSection::lr_pattern), MapKind<RealKind>{RealKind{0}},
      "Other rates for some targets, as factors of the run's, by name ending or expression: "
      "'text_encoder.*': 0.5.");
  add(t, "adapter.init_from", at(&AdapterSection::init_from),
      OptionalKind<PathKind>{PathKind{"PEFT adapter folder or LoRA file"}},
      "Adapter whose weights the training begins with. Rank, alpha, their patterns, targets, "
      "dropout and rslora are those of its file where they are not set.",
      kMayChange);
}

void add_token(std::vector<Option>& t) {
  const auto at = [](auto member) {
    return field(&RunConfig::adapter, &AdapterSection::token, member);
  };
  add(t, "adapter.token.word", at(&TokenSection::word), OptionalKind<TextKind>{TextKind{"word"}},
      "Textual inversion (Gal et al. 2022): a word of the captions whose embeddings are trained, "
      "beside LoRA or alone (adapter.type: token).");
  add(t, "adapter.token.vectors", at(&TokenSection::vectors), IntegerKind{1, 75},
      "Embeddings that it becomes.");
  add(t, "adapter.token.init", at(&TokenSection::init), OptionalKind<TextKind>{TextKind{"words"}},
      "Words of the model whose embeddings it begins with; null: embeddings drawn as the model's "
      "own are spread.");
  add(t, "adapter.token.lr_ratio", at(&TokenSection::lr_ratio), RealKind{0, true},
      "Its learning rate over that of the run.");
}

struct TrainAccess {
  std::pair<std::string&, std::vector<std::string>&> operator()(RunConfig& config) const {
    return {config.data.train, config.data.more_train};
  }
  std::pair<const std::string&, const std::vector<std::string>&> operator()(
      const RunConfig& config) const {
    return {config.data.train, config.data.more_train};
  }
};

void add_prepare(std::vector<Option>& t) {
  const auto at = [](auto member) {
    return field(&RunConfig::data, &DataSection::prepare, member);
  };
  using P = PrepareSection;
  add(t, "data.prepare.tokenizer", at(&P::tokenizer),
      PathKind{"folder, tokenizer.json, bytes or auto"},
      "Of data that is no token file yet (docs/data.md), as all of data.prepare; auto is that of "
      "model.path, bytes where the model has none and 258 tokens.",
      kMayChange);
  add(t, "data.prepare.chat_template", at(&P::chat_template), PathKind{"auto, a name or a file"},
      "How chats are written; auto is the model's own template (--chat-template of "
      "scripts/prepare_text.py).",
      kMayChange);
  add(t, "data.prepare.chat_template_kwargs", at(&P::chat_template_kwargs),
      OptionalKind<TextKind>{TextKind{"JSON in quotes"}},
      "Variables for the model's own template, as in '{\"enable_thinking\": false}'.", kMayChange);
  add(t, "data.prepare.default_system", at(&P::default_system),
      OptionalKind<TextKind>{TextKind{"text"}}, "The system text of chats that have none.",
      kMayChange);
  add(t, "data.prepare.format", at(&P::format), TextKind{"auto or a name"},
      "What the files are: --format of scripts/prepare_text.py.", kMayChange);
  add(t, "data.prepare.text_split", at(&P::text_split),
      TextKind{"document, paragraph, formfeed, lines:N or chars:N"},
      "What a document is in plain text; document: a file.", kMayChange);
  add(t, "data.prepare.learn", at(&P::learn), words({"all", "last", "everything"}),
      "What of a chat is a target: all answers, the last one, or every token.", kMayChange);
  add(t, "data.prepare.turns", at(&P::turns), words({"together", "apart"}),
      "Whether a chat is one document where its template allows that, or each answer is one with "
      "what led to it, as the model meets and writes it.",
      kMayChange);
  add(t, "data.prepare.columns", at(&P::columns),
      MapKind<TextKind>{TextKind{"name"}, "part", "{prompt: question, completion: answer}"},
      "Names in the files of what a record holds, as in {prompt: question, completion: answer}.",
      kMayChange);
  add(t, "data.prepare.ignore", at(&P::ignore), TextListKind{true, "[key, ...]"},
      "Keys of records that are not needed, though they might change what is learnt.", kMayChange);
  add(t, "data.prepare.max_length", at(&P::max_length),
      OptionalKind<IntegerKind>{IntegerKind{2, (std::int64_t{1} << 31) - 1}},
      "Tokens that documents are cut to; null does not cut (data.packing: false and "
      "sequence_length do when rows are made).",
      kMayChange);
  add(t, "data.prepare.max_records", at(&P::max_records),
      OptionalKind<IntegerKind>{IntegerKind{1, (std::int64_t{1} << 53)}},
      "How many records (or documents of plain text) of each file are taken, from its beginning; "
      "null takes all.",
      kMayChange);
  add(t, "data.prepare.validation_fraction", at(&P::validation_fraction),
      RealKind{0, false, 1, true},
      "Share of the documents of data.train that becomes the validation set, chosen by their "
      "contents; 0 splits none off.",
      kMayChange);
  add(t, "data.prepare.deduplicate", at(&P::deduplicate), BooleanKind{},
      "Keep one of equal documents.", kMayChange);
  add(t, "data.prepare.skip_bad", at(&P::skip_bad), BooleanKind{},
      "Count bad records and go on, instead of refusing the file.", kMayChange);
  add(t, "data.prepare.cache", at(&P::cache), OptionalKind<PathKind>{PathKind{"folder"}},
      "Where prepared data is kept; null is prepared/ beside run.output_dir. On several machines "
      "a folder that all of them see.",
      kMayChange);
  add(t, "data.prepare.python", at(&P::python),
      OptionalKind<PathKind>{PathKind{"Python interpreter"}},
      "Python with h5py and tokenizers; null looks for one (docs/data.md).", kMayChange);
}

void add_captions(std::vector<Option>& t) {
  const auto at = [](auto member) {
    return field(&RunConfig::data, &DataSection::caption, member);
  };
  using C = CaptionSection;
  const RealKind share{0, false, 1, false};
  add(t, "data.caption.shuffle", at(&C::shuffle), BooleanKind{},
      "In training, put what stands between a caption's commas in a new order each time.");
  add(t, "data.caption.keep", at(&C::keep), IntegerKind{0, 1000},
      "So many tags at a caption's beginning stay where they are, and are never left out.");
  add(t, "data.caption.dropout", at(&C::dropout), share,
      "In training, share of captions that are left out: what samples with guidance need.");
  add(t, "data.caption.tag_dropout", at(&C::tag_dropout), share,
      "In training, share of tags that are left out, each by itself.");
  add(t, "data.caption.max_tokens", at(&C::max_tokens), IntegerKind{75, 225},
      "Tokens of a caption, what is beyond is cut off: 75, 150 or 225, the latter two in several "
      "rows of the text encoder.");
}

void add_data(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::data, member); };
  add(t, "data.train", TrainAccess{}, PathsKind{"file, folder or [file, ...]"},
      "Training set: a token file (HDF5), or what one is made of before the run, once: text, JSON "
      "Lines, JSON, CSV, Parquet, Arrow, or a folder of these (docs/data.md); of pictures an image "
      "file (docs/images.md), or one of captioned pictures (docs/captioned-images.md); required.",
      kMayChange);
  add(t, "data.validation", at(&DataSection::validation),
      OptionalKind<PathKind>{PathKind{"file or folder"}}, "Validation set, of the same kinds.",
      kMayChange);
  add_prepare(t);
  add(t, "data.augment.flip", field(&RunConfig::data, &DataSection::augment, &AugmentSection::flip),
      BooleanKind{}, "In training, show every other picture, by chance, as in a mirror.");
  add(t, "data.augment.shift",
      field(&RunConfig::data, &DataSection::augment, &AugmentSection::shift), IntegerKind{0, 1024},
      "In training, move pictures by up to so many pixels in each direction, by chance.");
  add(t, "data.augment.crop", field(&RunConfig::data, &DataSection::augment, &AugmentSection::crop),
      BooleanKind{},
      "In training, take any part of a picture that is larger than its bucket "
      "(scripts/prepare_images.py --keep-margin), by chance; false: the middle.");
  add(t, "data.augment.color_jitter",
      field(&RunConfig::data, &DataSection::augment, &AugmentSection::color_jitter),
      RealKind{0, false, 1, true},
      "In training, change brightness, contrast and saturation by up to this share, by chance; "
      "latents are not kept then.");
  add_captions(t);
  add(t, "data.masked", at(&DataSection::masked), BooleanKind{},
      "Errors count by the pictures' masks, which are their transparency "
      "(scripts/prepare_images.py --masks).");
  const auto cache = [](auto member) {
    return field(&RunConfig::data, &DataSection::cache, member);
  };
  add(t, "data.cache.enabled", cache(&CacheSection::enabled), BooleanKind{},
      "Latents of pictures, and captions where no text encoder trains, are computed once and kept "
      "on disk for later runs.",
      kMayChange);
  add(t, "data.cache.folder", cache(&CacheSection::folder),
      OptionalKind<PathKind>{PathKind{"folder"}},
      "Where; null is cache/ beside run.output_dir. On several machines a folder that all of them "
      "see.",
      kMayChange);
  add(t, "data.shuffle", at(&DataSection::shuffle), BooleanKind{},
      "A new order in each epoch, from the seed alone; false keeps the order of the file.");
  add(t, "data.sequence_length", at(&DataSection::sequence_length),
      IntegerKind{2, std::int64_t{1} << 20}, "Tokens of a row.");
  add(t, "data.packing", at(&DataSection::packing), OptionalKind<BooleanKind>{{}, "auto"},
      "Several documents in a row, each blind to the others, and longer ones split over rows; "
      "false: one document a row, without what is beyond sequence_length. Nothing is padded. auto "
      "packs, unless an epoch would then have fewer than 20 updates and every document fits a row "
      "of its own.");
}

}  // namespace

void add_options_of_model_and_data(std::vector<Option>& table) {
  add_run(table);
  add_model(table);
  add_resnet(table);
  add_adapter(table);
  add_token(table);
  add_data(table);
}

}  // namespace lorascale::config
