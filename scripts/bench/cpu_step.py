"""One LoRA update on the CPU, lorascale beside transformers + peft: time, peak memory, time to the first update.

    $(scripts/setup.sh --print-python) scripts/bench/cpu_step.py [--dtype fp32 bf16] [--steps 8] [--threads 1]

Shape: d 512, 8 layers, 8 heads (4 kv), ffn 1408, vocabulary 32000; rows of 256 tokens, micro-batch 8, r 16 on all
linear layers, AdamW. All sides start from the same weights and see the same tokens, one after the other, round after
round, in each dtype of the base: lorascale on one rank with all threads, lorascale on one rank per thread where there
are several, transformers + peft. One thread is pinned to one core, for on shared cores the figures of several mean
little. Medians over the updates after two warm-ups; memory is the peak of the process (of the largest one).
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 in the environment give all sides the paths of an older CPU.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHAPE = dict(vocab_size=32000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
             num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=False)
ROW, BATCH, RANK, WARM_UP = 256, 8, 16, 2
SIDES = OURS, RANKS, PEER = "lorascale", "lorascale, rank per thread", "transformers + peft"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_inputs(folder: pathlib.Path, steps: int):
    import h5py
    import numpy as np
    import torch
    import transformers
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).save_pretrained(folder / "base")
    tokens = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (steps * BATCH, ROW))
    with h5py.File(folder / "train.h5", "w") as file:
        file.attrs.update({"format": "lorascale-tokens", "version": 1, "vocab_size": SHAPE["vocab_size"], "eos_id": -1})
        file["tokens"] = tokens.ravel().astype(np.uint16)
        file["offsets"] = np.arange(0, tokens.size + 1, ROW)


def ours(folder: pathlib.Path, dtype: str, steps: int, threads: int, ranks: int):
    run = pathlib.Path(tempfile.mkdtemp(dir=folder))
    config = f"""
run: {{output_dir: {run}, threads: {threads // ranks}}}
model: {{path: {folder}/base, dtype: {dtype}}}
adapter: {{rank: {RANK}, alpha: 32, targets: all-linear}}
data: {{train: {folder}/train.h5, shuffle: false, packing: false, sequence_length: {ROW}}}
batch: {{global: {BATCH}, micro: {BATCH // ranks}}}
schedule: {{name: constant, warmup: 0}}
checkpoint: {{every: 0}}
budget: {steps} steps
"""
    (run / "config.yaml").write_text(config)
    command = [str(ROOT / "build/release/lorascale"), "train", str(run / "config.yaml")]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command]
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    start = time.time()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = None
    metrics = run / "metrics.jsonl"
    while process.poll() is None:
        if first is None and metrics.exists() and metrics.read_text().count("\n") >= 1:
            first = time.time() - start
        time.sleep(0.01)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    timed = [line for line in lines if line["step"] > WARM_UP]
    return {"ms": [line["step_ms"] for line in timed],
            "waits": {part: sum(line[f"{part}_ms"] for line in timed) / sum(line["step_ms"] for line in timed)
                      for part in ("data_wait", "idle", "reduce")},
            "loss": [line["loss"] for line in lines], "first_ms": lines[0]["step_ms"], "start_s": first}


def peer(folder: pathlib.Path, dtype: str, steps: int, threads: int):
    import h5py
    import peft
    import torch
    import transformers
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "base", dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype], attn_implementation="sdpa")
    model = peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=32, target_modules=LINEARS,
                                                       task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, weight_decay=0.0)
    with h5py.File(folder / "train.h5") as file:
        rows = torch.tensor(file["tokens"][...].astype("int64")).view(-1, ROW)
    times, losses = [], []
    for step in range(steps):
        start = time.perf_counter()
        batch = rows[step * BATCH:(step + 1) * BATCH]
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(1000 * (time.perf_counter() - start))
    return {"ms": times[WARM_UP:], "loss": losses}


def in_child(side: str, dtype: str, arguments):
    """Runs one side in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(arguments.folder), "--dtype", dtype, "--steps",
               str(arguments.steps), "--threads", str(arguments.threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def run_side(arguments):
    if arguments.threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the children inherit it
    dtype = arguments.dtype[0]
    if arguments.side == PEER:
        result = peer(arguments.folder, dtype, arguments.steps, arguments.threads)
        result["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    else:
        ranks = arguments.threads if arguments.side == RANKS else 1
        result = ours(arguments.folder, dtype, arguments.steps, arguments.threads, ranks)
        result["mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps(result))


def name_of_the_cpu():
    import torch
    fields = dict(line.split(":", 1) for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
    limits = [f"{key}={os.environ[key]}" for key in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA") if key in os.environ]
    return (f"{fields.get('model name')} (family {fields.get('cpu family')}, model {fields.get('model')}), "
            f"{os.cpu_count()} cores, {', '.join(flags)}; kernels {torch.backends.cpu.get_cpu_capability()}"
            + (f"; {' '.join(limits)}" if limits else ""))


def tell(dtype: str, rounds, sides, threads: int):
    ms = {side: statistics.median(m for each in rounds for m in each[side]["ms"]) for side in sides}
    mib = {side: max(each[side]["mib"] for each in rounds) for side in sides}
    for side in sides:
        print(f"{dtype} {side:28} {ms[side]:9.1f} ms per update, peak {mib[side]:7.0f} MiB")
    print(f"{dtype} time    {ratio_of(rounds):.3f} of the peer's (rounds: "
          f"{', '.join(f'{ratio_of([each]):.3f}' for each in rounds)})")
    print(f"{dtype} memory  {mib[OURS] / mib[PEER]:.3f} of the peer's")
    if RANKS in sides:
        print(f"{dtype} ranks   {ms[OURS] / ms[RANKS]:.3f} of the throughput of one rank, with {threads} ranks of one "
              f"thread instead of one rank of {threads}")
    for side in sides[:-1]:
        waits = rounds[0][side]["waits"]
        print(f"{dtype} waits   {side}: loader {waits['data_wait']:.2%}, other ranks {waits['idle']:.2%}, all-reduce "
              f"{waits['reduce']:.2%} of the step")
    losses = rounds[0][OURS]["loss"], rounds[0][PEER]["loss"]
    apart = [abs(mine / other - 1) for mine, other in zip(*losses, strict=True)]
    print(f"{dtype} start   {min(each[OURS]['start_s'] for each in rounds):.2f} s until the first update is on record, "
          f"itself included ({min(each[OURS]['first_ms'] for each in rounds) / 1000:.2f} s)")
    print(f"{dtype} losses  differ from the peer's by {apart[0]:.1e} at first, {max(apart):.1e} at most in "
          f"{len(apart)} updates (relative)")
    return ms[OURS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments)
        return
    sides = SIDES if arguments.threads > 1 else (OURS, PEER)
    print(name_of_the_cpu())
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = pathlib.Path(folder)
        make_inputs(arguments.folder, arguments.steps)
        rounds = [{dtype: {side: in_child(side, dtype, arguments) for side in sides} for dtype in arguments.dtype}
                  for _ in range(arguments.rounds)]
    medians = [tell(dtype, [each[dtype] for each in rounds], sides, arguments.threads) for dtype in arguments.dtype]
    if arguments.dtype == ["fp32", "bf16"]:
        print(f"bf16    {medians[1] / medians[0]:.3f} of the time of fp32")


def ratio_of(rounds):
    medians = [statistics.median(ms for each in rounds for ms in each[side]["ms"]) for side in (OURS, PEER)]
    return medians[0] / medians[1]


if __name__ == "__main__":
    main()
