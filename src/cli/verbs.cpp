#include "cli/verbs.hpp"

namespace lorascale::cli {

const std::vector<Verb>& verbs() {
  static const std::vector<Verb> kVerbs = {
      {"train",
       "CONFIG.yaml [--set key.path=value ...]\n"
       "        [--more AMOUNT [--leg-rate present|peak]] [--cooldown AMOUNT]\n"
       "        [--into FOLDER [--at-step N]]",
       "train an adapter (or a whole model, adapter.type: full); the same command goes on where "
       "it\n"
       "      stopped. --more: beyond the budget, by a new leg of the schedule; --cooldown: the "
       "rate\n"
       "      down to its floor; --into: in another folder, from a checkpoint of the run in\n"
       "      run.output_dir",
       run_train},
      {"plan", "CONFIG.yaml [--ranks N] [--headers-only] [--set ...]",
       "print what train would do: batch, rates, steps, memory; trains nothing\n"
       "           --headers-only: check settings and the headers of files, where nothing may be "
       "loaded",
       run_plan},
      {"cache", "CONFIG.yaml [--set ...]",
       "compute what is frozen (latents of pictures, captions) for all samples, and keep it on\n"
       "      disk; train does it by itself, this on as many ranks as there are and before it",
       run_cache},
      {"find-batch", "CONFIG.yaml [--set ...]",
       "measure which batch.micro fits into memory and which is fastest; trains nothing",
       run_find_batch},
      {"find-lr", "CONFIG.yaml [--from RATE] [--to RATE] [--updates N] [--set ...]",
       "find a bracket of good rates (of 1e-6 to 1, in 100 updates, unless told otherwise) at the\n"
       "      batch of the config; leaves no checkpoint and no adapter",
       run_find_lr},
      {"generate",
       "CONFIG.yaml --prompt TEXT | --ids \"1 2 3\" [--decode] [--adapter FOLDER]\n"
       "           [--max-tokens N] [--output FILE.png] [--strength X] [--set ...]",
       "continue a prompt with the model and an adapter, or make a picture of it", run_generate},
      {"inspect", "PATH [--replay]",
       "explain a run folder, its checkpoints, an adapter, a data set, a model or a "
       "decisions.jsonl;\n"
       "           --replay: take the decisions of a run folder again from its events.jsonl",
       run_inspect},
      {"merge", "--model PATH --adapter PATH --output FOLDER [--dtype bf16|fp16|fp32]",
       "write a full model with the adapter added to its weights", run_merge},
      {"resize", "ADAPTER --rank N | --keep SHARE --output PATH [--dtype bf16|fp16|fp32]",
       "write an adapter again at a lower rank, by the singular values of each layer's change:\n"
       "           the N largest, or as few as hold a share of the sum of their squares, such as "
       "0.95",
       run_resize},
      {"export", "ADAPTER --to peft|kohya|diffusers --output PATH [--model PATH]",
       "write a LoRA of pictures in the form of another program: folders for peft, a file of\n"
       "           sd-scripts' form for WebUIs, or one for diffusers",
       run_export},
  };
  return kVerbs;
}

}  // namespace lorascale::cli
