"""What the benchmarks of updates on CPUs run: lorascale and transformers + peft, each in a process of its own, on the same
weights and tokens."""
import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH, DEMO = "bench", "demo"  # models beside folders: made here, and that of the quickstart
SHAPE = dict(vocab_size=32000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
             num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=False)
WARM_UP = 2
OURS, RANKS, PEER, COMPILED, RATE = "lorascale", "lorascale, rank per thread", "transformers + peft", "compiled peer", "rate"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One update: `batch` rows of `row` tokens, the last `targets` of each row with a target; a LoRA of `rank` on all
    linear layers. `model` is BENCH, DEMO or a Hugging Face folder."""
    name: str
    dtype: str = "fp32"
    model: str = BENCH
    row: int = 256
    batch: int = 8
    rank: int = 16
    targets: float = 1.0
    steps: int = 7

    def base(self, folder: pathlib.Path):
        return {BENCH: folder / "base", DEMO: ROOT / "scripts/demo/base-model"}.get(self.model, pathlib.Path(self.model))

    def data(self, folder: pathlib.Path):
        return folder / f"{pathlib.Path(self.model).name}-{self.row}-{self.batch}-{self.targets}-{self.steps}.h5"


def make_inputs(folder: pathlib.Path, cases):
    import h5py
    import numpy as np
    import torch
    import transformers
    if any(case.model == BENCH for case in cases) and not (folder / "base").exists():
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).save_pretrained(folder / "base")
    for case in cases:
        path = case.data(folder)
        if path.exists():
            continue
        vocabulary = json.loads((case.base(folder) / "config.json").read_text())["vocab_size"]
        tokens = np.random.default_rng(0).integers(0, vocabulary, (case.steps * case.batch, case.row))
        with h5py.File(path, "w") as file:
            file.attrs.update({"format": "lorascale-tokens", "version": 1, "vocab_size": vocabulary, "eos_id": -1})
            file["tokens"] = tokens.ravel().astype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
            file["offsets"] = np.arange(0, tokens.size + 1, case.row)
            if case.targets < 1:
                mask = np.arange(case.row) >= round(case.row * (1 - case.targets))
                file["loss_mask"] = np.tile(mask, len(tokens)).astype(np.uint8)


def ours(folder: pathlib.Path, case: Case, threads: int, ranks: int):
    run = pathlib.Path(tempfile.mkdtemp(dir=folder))
    config = f"""
run: {{output_dir: {run}, threads: {threads // ranks}}}
model: {{path: {case.base(folder)}, dtype: {case.dtype}}}
adapter: {{rank: {case.rank}, alpha: {2 * case.rank}, targets: all-linear}}
data: {{train: {case.data(folder)}, shuffle: false, packing: false, sequence_length: {case.row}}}
batch: {{global: {case.batch}, micro: {max(1, case.batch // ranks)}}}
schedule: {{name: constant, warmup: 0}}
sample: {{every: 0}}
checkpoint: {{every: 0}}
budget: {case.steps} steps
"""
    (run / "given.yaml").write_text(config)
    program = os.environ.get("LORASCALE_PROGRAM", str(ROOT / "build/release/lorascale"))
    command = [program, "train", str(run / "given.yaml")]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command]
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    start, first, metrics = time.time(), None, run / "metrics.jsonl"
    with open(run / "said", "w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        while process.poll() is None:
            if first is None and metrics.exists() and metrics.read_text().count("\n") >= 1:
                first = time.time() - start
            time.sleep(0.01)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{(run / 'said').read_text()[-2000:]}")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    timed = [line for line in lines if line["step"] > WARM_UP]
    return {"ms": [line["step_ms"] for line in timed],
            "waits": {part: sum(line[f"{part}_ms"] for line in timed) / sum(line["step_ms"] for line in timed)
                      for part in ("data_wait", "idle", "reduce")},
            "loss": [line["loss"] for line in lines], "first_ms": lines[0]["step_ms"], "start_s": first}


def peer(folder: pathlib.Path, case: Case, threads: int, compiled: bool):
    import h5py
    import peft
    import torch
    import transformers
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        case.base(folder), dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[case.dtype], attn_implementation="sdpa")
    model = peft.get_peft_model(model, peft.LoraConfig(r=case.rank, lora_alpha=2 * case.rank, target_modules=LINEARS,
                                                       task_type="CAUSAL_LM"))
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, weight_decay=0.0)
    with h5py.File(case.data(folder)) as file:
        rows = torch.tensor(file["tokens"][...].astype("int64")).view(-1, case.row)
        labels = rows.clone()
        if "loss_mask" in file:
            labels[torch.tensor(file["loss_mask"][...]).view(rows.shape) == 0] = -100
    times, losses = [], []
    for step in range(case.steps):
        start = time.perf_counter()
        part = slice(step * case.batch, (step + 1) * case.batch)
        loss = forward(input_ids=rows[part], labels=labels[part], use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(1000 * (time.perf_counter() - start))
    return {"ms": times[WARM_UP:], "loss": losses}


def products(case: Case, threads: int):
    """ms that the products of frozen weights in an update of the made model take by themselves, forward and for the
    gradient of the input, each by the faster of libtorch's two libraries."""
    import torch
    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[case.dtype]
    hidden, inner, heads = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["num_attention_heads"]
    joint = hidden * (heads + 2 * SHAPE["num_key_value_heads"]) // heads
    layers = SHAPE["num_hidden_layers"]
    shapes = [(layers, joint, hidden), (layers, hidden, hidden), (layers, 2 * inner, hidden), (layers, hidden, inner),
              (1, SHAPE["vocab_size"], hidden)]
    total = operations = 0.0
    with torch.no_grad():
        for count, out, width in shapes:
            x = torch.randn(case.batch * case.row, width, dtype=dtype)
            weight = torch.randn(out, width, dtype=dtype)
            gradient = torch.randn(len(x), out, dtype=dtype)
            for left, right in ((x, weight), (gradient, weight.t().contiguous())):
                ways = (lambda a=left, b=right: torch.mm(a, b.t()),
                        lambda a=left, b=right: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
                total += count * min(shortest(way) for way in ways)
                operations += count * 2 * left.numel() * right.shape[0]
    return {"ms": [1000 * total], "gflops": operations / total / 1e9}


def shortest(work, repetitions: int = 4):
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def in_child(side: str, case: Case, folder: pathlib.Path, threads: int):
    """Runs one side in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, side, json.dumps(dataclasses.asdict(case)), str(folder), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} of {case.name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_side(side: str, case: Case, folder: pathlib.Path, threads: int):
    if threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the children inherit it
    if side == RATE:
        return products(case, threads)
    if side in (PEER, COMPILED):
        result = peer(folder, case, threads, side == COMPILED)
        result["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    else:
        result = ours(folder, case, threads, threads if side == RANKS else 1)
        result["mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return result


def cpu_fields():
    fields = dict(line.split(":", 1) for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in fields.items()}


def name_of_the_cpu():
    import torch
    fields = cpu_fields()
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
    limits = [f"{key}={os.environ[key]}" for key in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA") if key in os.environ]
    return (f"{fields.get('model name')} (family {fields.get('cpu family')}, model {fields.get('model')}), "
            f"{os.cpu_count()} cores, {', '.join(flags)}; kernels {torch.backends.cpu.get_cpu_capability()}"
            + (f"; {' '.join(limits)}" if limits else ""))


if __name__ == "__main__":
    print(json.dumps(run_side(sys.argv[1], Case(**json.loads(sys.argv[2])), pathlib.Path(sys.argv[3]), int(sys.argv[4]))))
