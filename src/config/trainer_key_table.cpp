// The keys themselves, by what becomes of them.
#include <vector>

#include "config/trainer_keys.hpp"

namespace lorascale::config {
namespace {

using enum AliasMeaning;

// Names with blanks between, all with one meaning.
void add(std::vector<Alias>& table, std::string_view names, AliasMeaning meaning,
         std::string_view target, std::string_view only = {}) {
  while (!names.empty()) {
    const auto end = names.find(' ');
    table.push_back({names.substr(0, end), meaning, target, only});
    names.remove_prefix(end == std::string_view::npos ? names.size() : end + 1);
  }
}

void add_renamed(std::vector<Alias>& t) {
  add(t, "adapter finetuning_type", kTuning, "adapter.type");
  add(t, "peft_use_rslora", kSwitch, "adapter.rslora");
  add(t, "peft_use_dora", kSwitch, "adapter.dora");
  add(t, "lora_model_dir adapter_name_or_path network_weights", kSame, "adapter.init_from");
  add(t, "torch_dtype dtype", kPrecision, "model.dtype");
  add(t, "bfloat16", kPrecisionFlag, "model.dtype", "bf16");
  add(t, "float16 full_fp16", kPrecisionFlag, "model.dtype", "fp16");
  add(t, "full_bf16", kPrecisionFlag, "model.dtype", "bf16");
  add(t, "tokenizer_name_or_path tokenizer_name", kSame, "data.prepare.tokenizer");
  add(t, "datasets pretraining_dataset", kDatasets, "data.train");
  add(t, "test_datasets", kDatasets, "data.validation");
  add(t, "dataset dataset_name data_path", kDatasetNames, "data.train");
  add(t, "eval_dataset", kDatasetNames, "data.validation");
  add(t, "val_set_size val_size", kShareOfData, "data.prepare.validation_fraction");
  add(t, "dataset_prepared_path tokenized_path", kSame, "data.prepare.cache");
  add(t, "template", kTemplate, "data.prepare.chat_template");
  add(t, "chat_template chat_template_path chat_template_jinja", kChatTemplate,
      "data.prepare.chat_template");
  add(t, "default_system default_system_message", kSame, "data.prepare.default_system");
  add(t, "dataset_text_field", kTextColumn, "data.prepare.columns");
  add(t, "max_samples", kSame, "data.prepare.max_records");
  add(t, "mask_history", kLearnLast, "data.prepare.learn");
  add(t, "shuffle_merged_datasets", kSwitch, "data.shuffle");
  add(t, "label_smoothing_factor", kSame, "loss.label_smoothing");
  add(t, "adam_eps", kSame, "optimizer.eps");
  add(t, "cosine_min_lr_ratio", kSame, "schedule.floor");
  add(t, "eval_strategy evaluation_strategy", kStrategy, "evaluate.every");
  add(t, "save_strategy", kStrategy, "checkpoint.every");
  add(t, "evals_per_epoch", kTimesPerEpoch, "evaluate.every");
  add(t, "saves_per_epoch", kTimesPerEpoch, "checkpoint.every");
  add(t, "sample_every_n_epochs", kEpochs, "sample.every");
}

void add_harmless(std::vector<Alias>& t) {
  add(t, "do_train do_eval use_peft task_type lora_task_type", kNoCounterpart,
      "the verb train does that");
  add(t, "dataset_dir", kNoCounterpart, "it explains the names in dataset");
  add(t,
      "plot_loss logging_first_step logging_strategy disable_tqdm include_num_input_tokens_seen "
      "include_tokens_per_second log_level debug",
      kNoCounterpart, "every update is logged, and scripts/report.py draws it");
  add(t,
      "wandb_project wandb_entity wandb_watch wandb_name wandb_run_id wandb_log_model "
      "wandb_mode use_wandb run_name mlflow_experiment_name mlflow_tracking_uri use_mlflow "
      "log_tracker_name use_swanlab swanlab_project use_tensorboard log_with log_prefix "
      "comet_project_name",
      kNoCounterpart, "TensorBoard and JSON lines are always written");
  add(t,
      "overwrite_output_dir resume_from_checkpoint auto_resume_from_checkpoints save_state "
      "save_only_model save_safetensors load_best_model_at_end metric_for_best_model "
      "greater_is_better save_first_step",
      kNoCounterpart,
      "a run goes on from its newest checkpoint; best/ holds the best by validation loss");
  add(t,
      "overwrite_cache preprocessing_num_workers dataset_num_proc dataset_processes "
      "skip_prepare_dataset remove_unused_columns buffer_size streaming dataset_config",
      kNoCounterpart,
      "the whole set is prepared once, and again where contents or settings changed");
  add(t,
      "dataloader_pin_memory dataloader_prefetch_factor dataloader_persistent_workers "
      "max_data_loader_n_workers persistent_data_loader_workers lowram",
      kNoCounterpart, "data is read ahead without worker processes");
  add(t,
      "flash_attention flash_attn xformers_attention sdp_attention attn_implementation sdpa "
      "mem_eff_attn flash_attn_cross_entropy flash_attn_rms_norm flash_attn_fuse_qkv "
      "flash_attn_fuse_mlp eager_attention flex_attention",
      kNoCounterpart, "the attention kernel is chosen by the device");
  add(t,
      "tf32 torch_compile torch_compile_backend plugins use_liger_kernel enable_liger_kernel "
      "liger_rope liger_rms_norm liger_glu_activation liger_layer_norm "
      "liger_fused_linear_cross_entropy cut_cross_entropy use_unsloth use_unsloth_gc "
      "lora_mlp_kernel lora_qkv_kernel lora_o_kernel unsloth_lora_mlp "
      "gradient_checkpointing_kwargs use_reentrant_gc disable_gradient_checkpointing use_cache "
      "lora_on_cpu torch_empty_cache_steps low_cpu_mem_usage upcast_layernorm upcast_lmhead_output",
      kNoCounterpart, "it concerns speed and memory of other code");
  add(t,
      "deepspeed fsdp fsdp_config ddp_timeout ddp_find_unused_parameters ddp_backend "
      "local_rank device_map accelerator_config",
      kNoCounterpart, "ranks are started by launch/mpirun.sh or srun, and share the work alike");
  add(t,
      "group_by_length length_column_name pad_to_sequence_len pad_to_multiple_of neat_packing "
      "padding_free eval_sample_packing eval_packing packing_strategy sample_packing_eff_est "
      "total_num_tokens per_device_eval_batch_size eval_batch_size eval_accumulation_steps "
      "eval_on_start "
      "multipack_real_batches sample_packing_group_size sample_packing_bin_size",
      kNoCounterpart, "nothing is padded, and documents that share a row do not see each other");
  add(t,
      "model_type model_train_type tokenizer_type base_model_config tokenizer_config "
      "processor_type "
      "trust_remote_code tokenizer_use_fast use_fast_tokenizer is_llama_derived_model "
      "is_mistral_derived_model pad_token strict cache_dir",
      kNoCounterpart, "model and tokenizer say what they are; no code of a model is run");
  add(t, "loss_watchdog_threshold loss_watchdog_patience", kNoCounterpart,
      "a loss that stays far above its mean ends the run, or goes back (divergence.action)");
  add(t, "average_tokens_across_devices", kNoCounterpart,
      "the loss is the mean over all targets of the global batch, on any number of ranks");
  add(t, "auto_find_batch_size", kNoCounterpart, "batch.micro auto does that");
  add(t, "data_seed full_determinism", kNoCounterpart, "run.seed sets every order");
  add(t, "warmup_type loraplus_lr_embedding eval_table_size eval_max_new_tokens bench_dataset",
      kNoCounterpart, "it has no counterpart");
}

void add_refused(std::vector<Alias>& t) {
  add(t, "dataset_train_split", kOnly, "save that part as a file and name it in data.train",
      "train");
  add(t, "dataset_test_split", kOnly, "save that part as a file and name it in data.validation",
      "test|validation");
  add(t, "dataset_exact_deduplication", kOnly,
      "equal documents are kept once (data.prepare.deduplicate)", "true");
  constexpr std::string_view kTokenizerSays =
      "what begins and ends a text is what the tokenizer's files say; remove it, or prepare the "
      "data "
      "with scripts/prepare_text.py --eos-token, --bos-token";
  add(t, "eos_token bos_token", kRefused, kTokenizerSays);
  add(t, "special_tokens", kSpecialTokens, kTokenizerSays);
  constexpr std::string_view kSupervised =
      "only next tokens are trained on (sft, pt), not preferences or rewards; use another trainer "
      "for that stage, and start it from the adapter made here";
  add(t, "stage", kOnly, kSupervised, "sft|pt");
  add(t,
      "rl trl pref_beta pref_ftx pref_loss dpo_beta dpo_loss kto_chosen_weight "
      "kto_rejected_weight ref_model reward_model reward_model_type ppo_score_norm rl_beta "
      "orpo_alpha reward_funcs process_reward_model",
      kRefused, kSupervised);
  constexpr std::string_view kNoQuantisation =
      "base weights are not quantised; remove it, set model.dtype: bf16, and model.recompute: true "
      "if memory is short";
  add(t, "gptq fp8 fp8_base awq", kRefused, kNoQuantisation);
  add(t, "quantization quantization_method load_in_fp8", kRefused, kNoQuantisation);
  add(t,
      "quantization_type double_quantization bnb_config_kwargs bnb_4bit_quant_type "
      "bnb_4bit_compute_dtype bnb_4bit_use_double_quant use_bnb_nested_quant",
      kNoCounterpart, "base weights are not quantised");
  add(t, "network_args", kNetworkArguments, "adapter.targets");
  constexpr std::string_view kPlainLora =
      "LoRA on linear layers is what is trained; remove it (adapter.targets names the layers)";
  add(t,
      "pissa_init use_galore use_badam use_apollo relora_steps "
      "peft_layers_to_transform "
      "lora_layers_to_transform peft_layer_replication loftq_config create_new_adapter "
      "lora_fan_in_fan_out unfrozen_parameters freeze_trainable_layers use_llama_pro "
      "peft_trainable_token_indices conv_dim conv_alpha",
      kRefused, kPlainLora);
  add(t, "bias lora_bias", kOnly, "biases are not trained; remove it", "none|false");
  add(t, "init_lora_weights peft_init_lora_weights", kOnly,
      "A starts at random and B at zero; remove it", "true");
  add(t, "neftune_noise_alpha noisy_embedding_alpha", kRefused,
      "no noise is added to embeddings; remove it");
  add(t, "rope_scaling rope_theta shift_attn s2_attention", kRefused,
      "the model is taken as its config.json says; change that file");
  add(t,
      "tokens added_tokens_overrides resize_vocab new_special_tokens "
      "resize_token_embeddings_to_32x",
      kRefused, "new tokens are not trained; write them as text that the tokenizer knows");
  add(t, "train_on_inputs train_on_prompt", kOnly,
      "targets are the answers; data.prepare.learn: everything makes all of a chat one", "false");
  add(t, "assistant_only_loss completion_only_loss", kOnly,
      "targets are the answers; data.prepare.learn: everything makes all of a chat one", "true");
  add(t, "do_predict predict_with_generate", kRefused,
      "lorascale generate writes text, after training");
  add(t, "push_to_hub", kRefused, "upload adapter/ of the run folder yourself; remove it");
  add(t, "hub_model_id hub_strategy hub_token hub_private_repo", kNoCounterpart,
      "nothing is uploaded");
  add(t, "model_revision revision_of_model", kOnly,
      "fetch that revision, and name its folder in model.path", "main");
  add(t,
      "optim_args optimizer_args optimizer_kwargs lr_scheduler_kwargs lr_scheduler_args "
      "use_dft_loss lr_groups embedding_lr embedding_lr_scale optim_target_modules",
      kRefused,
      "write what it sets as settings of its own (optimizer, schedule, loss in "
      "docs/configuration.md)");
  add(t,
      "tensor_parallel_size context_parallel_size sequence_parallel_degree "
      "pipeline_parallel_size",
      kOnly, "every rank holds the whole model; remove it", "1");
}

// Of sd-scripts, for models that make pictures.
void add_pictures(std::vector<Alias>& t) {
  add(t, "clip_skip", kSame, "model.clip_skip");
  add(t, "vae", kSame, "model.vae");
  add(t, "v_parameterization", kFlag, "model.prediction", "v");
  add(t, "shuffle_caption", kSwitch, "data.caption.shuffle");
  add(t, "keep_tokens", kSame, "data.caption.keep");
  add(t, "caption_dropout_rate", kSame, "data.caption.dropout");
  add(t, "caption_tag_dropout_rate", kSame, "data.caption.tag_dropout");
  add(t, "max_token_length", kCaptionLength, "data.caption.max_tokens");
  add(t, "random_flip flip_aug", kSwitch, "data.augment.flip");
  add(t, "random_crop", kSwitch, "data.augment.crop");
  add(t, "masked_loss alpha_mask", kSwitch, "data.masked");
  add(t, "min_snr_gamma", kSame, "loss.min_snr_gamma");
  add(t, "debiased_estimation_loss", kSwitch, "loss.debiased");
  add(t, "scale_v_pred_loss_like_noise_pred", kSwitch, "loss.scale_v_like_noise");
  add(t, "noise_offset", kSame, "loss.noise_offset");
  add(t, "adaptive_noise_scale", kSame, "loss.noise_offset_adaptive");
  add(t, "ip_noise_gamma", kSame, "loss.input_perturbation");
  add(t, "zero_terminal_snr", kSwitch, "loss.zero_terminal_snr");
  add(t, "prior_loss_weight", kSame, "loss.prior_weight");
  add(t, "unet_lr", kUnetRate, "adapter.lr_pattern");
  add(t, "text_encoder_lr", kTextEncoderRate, "adapter.lr_pattern");
  add(t, "network_train_unet_only", kFlag, "adapter.targets",
      R"(unet\..*\.(to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2))");
  add(t, "network_train_text_encoder_only", kFlag, "adapter.targets",
      R"(text_encoder.*\.([qkv]_proj|out_proj|fc1|fc2))");
  add(t, "token_string", kNewWord, "adapter.token.word");
  add(t, "init_word", kSame, "adapter.token.init");
  add(t, "num_vectors_per_token", kSame, "adapter.token.vectors");
  add(t, "use_object_template use_style_template", kOnly,
      "captions are those of the data; write the word into them (scripts/prepare_images.py "
      "--prefix)",
      "false");
  add(t, "sample_sampler", kSampler, "sample.sampler");
  add(t, "sample_prompts", kPrompts, "sample.prompts");
  add(t,
      "resolution metadata_path caption_extension enable_bucket min_bucket_reso max_bucket_reso "
      "bucket_reso_steps bucket_no_upscale center_crop dataset_repeats reg_data_dir in_json",
      kNoCounterpart,
      "it says how pictures are prepared; scripts/train_folder.sh hands it to "
      "scripts/prepare_images.py");
  add(t, "cache_latents_to_disk", kSwitch, "data.cache.enabled");
  add(t,
      "cache_latents cache_text_encoder_outputs cache_text_encoder_outputs_to_disk "
      "vae_batch_size no_half_vae",
      kNoCounterpart,
      "what is frozen is computed once and kept; an autoencoder never computes in fp16");
  add(t, "v2 sdxl prior_preservation", kNoCounterpart, "model and data say it themselves");
  add(t, "color_aug", kColors, "data.augment.color_jitter", "0.1");
  add(t, "weighted_captions", kOnly, "it is not offered; remove it", "false");
  add(t, "caption_dropout_every_n_epochs multires_noise_iterations multires_noise_discount", kOnly,
      "it is not offered; remove it (data.caption.dropout and loss.noise_offset are)", "0");
  add(t, "keep_tokens_separator", kNoCounterpart, "keep_tokens counts the tags to keep");
  add(t, "noise_offset_random_strength", kOnly, "loss.noise_offset is a number; remove it",
      "false");
  add(t, "scale_weight_norms", kSame, "adapter.scale_weight_norms");
  add(t, "loss_type", kOnly, "the loss is the squared error; remove it", "l2");
  add(t, "lr_restart_cycles", kOnly, "the rate falls once and does not restart; remove it", "1");
  add(t, "save_n_epoch_ratio save_last_n_epochs save_last_n_steps", kNoCounterpart,
      "checkpoint.keep says how many are kept");
}

}  // namespace

std::span<const Alias> trainer_keys() {
  static const std::vector<Alias> table = [] {
    std::vector<Alias> keys;
    add_renamed(keys);
    add_refused(keys);
    add_harmless(keys);
    add_pictures(keys);
    return keys;
  }();
  return table;
}

}  // namespace lorascale::config
