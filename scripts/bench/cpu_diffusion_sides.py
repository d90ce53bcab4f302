"""What the benchmark of Stable Diffusion's updates on a CPU runs: lorascale and a plain loop of diffusers + peft, each in a
process of its own, on the same weights, latents, captions, noise and times; and the products of such an update alone."""
import collections
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from cpu_sides import ROOT

OURS, PEER, RATE, MODEL, INPUTS = "lorascale", "diffusers + peft", "rate", "model", "inputs"
RANK, ALPHA, RATE_OF_LEARNING = 16, 8, 1e-4
LINEARS = ["to_q", "to_k", "to_v", "to_out.0"]
TARGETS = r"^unet\..*\.(to_q|to_k|to_v|to_out\.0)$"
CAPTIONS = ["a red cat", "a dog, on grass", "cat, dog, red sky", "the quick brown fox, jumping high"]
SD15 = dict(
    unet=dict(sample_size=64, block_out_channels=[320, 640, 1280, 1280], cross_attention_dim=768, attention_head_dim=8,
              down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
              up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3),
    text=dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    vae=dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, norm_num_groups=32, scaling_factor=0.18215))
TINY = dict(
    unet=dict(sample_size=16, block_out_channels=[48, 96, 128], cross_attention_dim=96, attention_head_dim=4,
              layers_per_block=1, norm_num_groups=16, down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
              up_block_types=["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"]),
    text=dict(vocab_size=4851, hidden_size=96, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4),
    vae=dict(block_out_channels=[24, 48, 64], layers_per_block=1, norm_num_groups=8, scaling_factor=1.0))


@dataclasses.dataclass(frozen=True)
class Case:
    """`batch` pictures of `size` pixels an update. The first `warm_up` updates are the first epochs, in which lorascale
    encodes the pictures; they are not timed."""
    tiny: bool
    size: int
    batch: int
    micro: int
    dtype: str
    steps: int
    pictures: int
    warm_up: int = 2

    @property
    def shape(self):
        return TINY if self.tiny else SD15

    @property
    def model(self):
        cache = os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")
        home = os.environ.get("LORASCALE_HOME", pathlib.Path(cache) / "lorascale")
        return pathlib.Path(home) / "models" / ("diffusion-tiny-random-1" if self.tiny else "sd15-random-1")


def reference():
    sys.path.insert(0, str(ROOT / "tests/parity"))
    import diffusion_reference
    return diffusion_reference


# --- what both sides read ---------------------------------------------------------------------------------------------

def make_model(case: Case):
    """The folder, as diffusers and transformers save fresh models of these shapes, in bf16; once."""
    if case.model.exists():
        return {"path": str(case.model)}
    import diffusers
    import torch
    import transformers
    case.model.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=case.model.parent, prefix=case.model.name, suffix=".tmp") as scratch:
        folder = pathlib.Path(scratch) / "made"  # it gets its name when it is whole
        tokenizer = reference().make_tokenizer(folder / "tokenizer")
        text = {**case.shape["text"], "bos_token_id": len(tokenizer) - 2, "eos_token_id": len(tokenizer) - 1,
                "pad_token_id": len(tokenizer) - 1, "projection_dim": case.shape["text"]["hidden_size"]}
        levels = len(case.shape["vae"]["block_out_channels"])
        makers = {
            "unet": lambda: diffusers.UNet2DConditionModel(**case.shape["unet"]),
            "text_encoder": lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig(**text)),
            "vae": lambda: diffusers.AutoencoderKL(
                down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
                latent_channels=4, **case.shape["vae"]),
        }
        for name, make in makers.items():
            make().to(torch.bfloat16).save_pretrained(folder / name)
        diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                                clip_sample=False, set_alpha_to_one=False).save_pretrained(folder / "scheduler")
        index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__}
        (folder / "model_index.json").write_text(json.dumps(index))
        folder.rename(case.model)
    return {"path": str(case.model)}


def make_inputs(folder: pathlib.Path, case: Case):
    """train.h5 for lorascale, and inputs.pt, what its updates see by its own draws, for the peer."""
    import diffusers
    import torch
    import transformers
    known = reference()
    pictures = known.make_pictures(folder / "pictures", [(case.size, case.size)] * case.pictures, CAPTIONS)
    step = min(64, case.size // 2)
    known.prepare(pictures, case.model, folder / "train.h5", "--resolution", case.size, "--bucket-step", step,
                  "--no-deduplicate")
    data = known.Pictures(folder / "train.h5")
    vae = diffusers.AutoencoderKL.from_pretrained(case.model / "vae", torch_dtype=torch.float32)
    text = transformers.CLIPTextModel.from_pretrained(case.model / "text_encoder", dtype=torch.float32)
    model = {"kind": "sd1", "text_encoder": text}
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, known.STEPS, dtype=torch.float64) ** 2, 0)
    steps = []
    with torch.no_grad():
        moments = [vae.encode(data.pixels(i)).latent_dist for i in range(case.pictures)]
        contexts = [known.context_of(model, data, i)[0] for i in range(case.pictures)]
        for step in range(case.steps):
            epoch, first = divmod(step * case.batch, case.pictures)
            rows = range(first, first + case.batch)
            samples = []
            for row in rows:
                draws = known.Draws(0, epoch, row)
                shape = moments[row].mean.shape[1:]
                latents = (moments[row].mean + moments[row].std * draws.normal(1, shape)) * vae.config.scaling_factor
                t, noise = draws.time(), draws.normal(2, shape)
                samples.append((alphas[t].sqrt().float() * latents + (1 - alphas[t]).sqrt().float() * noise, noise, t))
            seen, noise, times = zip(*samples)
            steps.append({"seen": torch.cat(seen), "noise": torch.cat(noise), "times": torch.tensor(times),
                          "context": torch.cat([contexts[row] for row in rows])})
    torch.save(steps, folder / "inputs.pt")
    return {}


# --- the sides --------------------------------------------------------------------------------------------------------

def most_memory(pid="self"):
    """MiB that were resident at most (VmHWM); None of a process that is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(found[1]) / 1024 if found else None


def cpu_ms(pid: int):
    """Of a process and its threads; None where it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(process, metrics: pathlib.Path, warm_up: int):
    """Until it ends: (MiB at most, CPU ms of an update after the first `warm_up`)."""
    mib, marks = None, {}  # CPU time by the updates on record
    while process.poll() is None:
        mib, now = most_memory(process.pid) or mib, cpu_ms(process.pid)
        done = metrics.read_text().count('"step_ms"') if metrics.exists() else 0
        if now is not None and done >= warm_up:
            marks.setdefault(done, now)
        time.sleep(0.02)
    first, last = min(marks, default=0), max(marks, default=0)
    return mib, (marks[last] - marks[first]) / (last - first) if last > first else None


def ours(folder: pathlib.Path, case: Case):
    run = pathlib.Path(tempfile.mkdtemp(dir=folder))
    config = f"""
run: {{output_dir: {run}, threads: 1, device: cpu}}
model: {{path: {case.model}, dtype: {case.dtype}}}
adapter: {{rank: {RANK}, alpha: {ALPHA}, targets: ['{TARGETS}']}}
data: {{train: {folder / "train.h5"}, shuffle: false}}
batch: {{global: {case.batch}, micro: {case.micro}}}
optimizer: {{name: adamw, lr: {RATE_OF_LEARNING}}}
schedule: {{name: constant, warmup: 0}}
sample: {{every: 0}}
checkpoint: {{every: 0}}
budget: {case.steps} steps
"""
    (run / "given.yaml").write_text(config)
    command = [os.environ.get("LORASCALE_PROGRAM", str(ROOT / "build/release/lorascale")), "train", str(run / "given.yaml")]
    with open(run / "said", "w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        mib, cpu = watch(process, run / "metrics.jsonl", case.warm_up)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{(run / 'said').read_text()[-2000:]}")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "step_ms" in line]
    return {"ms": [line["step_ms"] for line in lines if line["step"] > case.warm_up],
            "cpu_ms": cpu, "loss": [line["loss"] for line in lines], "mib": mib}


def peer_unet(case: Case, unet):
    """With its LoRA, in fp32 whatever the frozen weights are in."""
    import diffusers.training_utils
    import peft
    import torch
    unet.requires_grad_(False)
    unet.add_adapter(peft.LoraConfig(r=RANK, lora_alpha=ALPHA, init_lora_weights="gaussian", target_modules=LINEARS))
    if case.dtype != "fp32":
        diffusers.training_utils.cast_training_params(unet, dtype=torch.float32)
    return unet.train()


def peer(folder: pathlib.Path, case: Case):
    import diffusers
    import torch
    torch.set_num_threads(1)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[case.dtype]
    unet = peer_unet(case, diffusers.UNet2DConditionModel.from_pretrained(case.model / "unet", torch_dtype=dtype))
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE_OF_LEARNING, weight_decay=0.0)
    times, losses, cpu = [], [], 0.0
    for given in torch.load(folder / "inputs.pt"):
        if len(times) == case.warm_up:
            cpu = time.process_time()
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=case.dtype == "bf16"):
            told = unet(given["seen"], given["times"], encoder_hidden_states=given["context"]).sample
        loss = torch.nn.functional.mse_loss(told.float(), given["noise"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(1000 * (time.perf_counter() - start))
    cpu = 1000 * (time.process_time() - cpu) / (len(times) - case.warm_up)
    return {"ms": times[case.warm_up:], "cpu_ms": cpu, "loss": losses, "mib": most_memory()}


# --- products alone ---------------------------------------------------------------------------------------------------

def calls_of(case: Case):
    """How often an update has each product of the frozen weights and each attention, with their shapes, and whether the
    gradient of its input is needed: a Counter."""
    import diffusers
    import torch
    calls = collections.Counter()

    def on_call(module, inputs):
        x = inputs[0]
        if isinstance(module, torch.nn.Conv2d):
            shapes = tuple(x.shape), tuple(module.weight.shape)
            calls["convolutions", *shapes, module.stride, module.padding, x.requires_grad] += 1
        else:
            rows = x.numel() // x.shape[-1]
            calls["matrix products", rows, module.in_features, module.out_features, x.requires_grad] += 1

    with torch.device("meta"):
        unet = peer_unet(dataclasses.replace(case, dtype="fp32"), diffusers.UNet2DConditionModel(**case.shape["unet"]))
        for name, module in unet.named_modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)) and "lora_" not in name:
                module.register_forward_pre_hook(on_call)
        attention = torch.nn.functional.scaled_dot_product_attention

        def on_attention(query, key, value, **rest):
            calls["attention", tuple(query.shape), tuple(key.shape), query.requires_grad] += 1
            return attention(query, key, value, **rest)

        side = case.size // 2 ** (len(case.shape["vae"]["block_out_channels"]) - 1)
        torch.nn.functional.scaled_dot_product_attention = on_attention
        unet(torch.empty(case.batch, 4, side, side), torch.ones(case.batch),
             encoder_hidden_states=torch.empty(case.batch, 77, case.shape["unet"]["cross_attention_dim"]))
    return calls


def shortest(work, repetitions: int = 3):
    """Seconds of the CPU: other programs may share it."""
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def fastest(*ways):
    """Seconds, by the way of the library that is fastest; some do not know some types."""
    times = []
    for way in ways:
        try:
            times.append(shortest(way))
        except RuntimeError:
            continue
    return min(times)


def time_convolution(dtype, shape, weight_shape, stride, padding, need_dx):
    """(seconds, operations) forward and for the gradient of the input, if that is needed."""
    import torch
    weight, x = torch.randn(weight_shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    last = {"memory_format": torch.channels_last}
    x_last, weight_last = x.contiguous(**last), weight.contiguous(**last)
    ones = [1, 1]
    y = torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding)

    def packed():
        rest = list(padding), list(stride), ones, 1
        made = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *rest, list(shape))
        return lambda a: torch.ops.mkldnn._convolution_pointwise(a, made, None, *rest, "none", [], "")

    ways = [lambda a=a, w=w: torch.nn.functional.conv2d(a, w, stride=stride, padding=padding)
            for a, w in ((x, weight), (x_last, weight_last))]
    try:
        run = packed()
        ways += [lambda a=a: run(a) for a in (x, x_last)]
    except RuntimeError:
        pass
    seconds, operations = fastest(*ways), 2 * y.numel() * weight[0].numel()
    if not need_dx:
        return seconds, operations
    back = [lambda g=g, a=a, w=w: torch.ops.aten.convolution_backward(
        g, a, w, None, stride, padding, ones, False, [0, 0], 1, [True, False, False])
        for g, a, w in ((y, x, weight), (y.contiguous(**last), x_last, weight_last))]
    return seconds + fastest(*back), 2 * operations


def time_product(dtype, rows, width, out, need_dx):
    import torch
    x, weight, dy = (torch.randn(*sizes, dtype=dtype) for sizes in ((rows, width), (out, width), (rows, out)))
    pairs = [(x, weight)] + ([(dy, weight.t().contiguous())] if need_dx else [])
    seconds = sum(fastest(lambda a=a, b=b: torch.mm(a, b.t()),
                          lambda a=a, b=b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
                  for a, b in pairs)
    return seconds, 2 * rows * width * out * len(pairs)


def time_attention(dtype, query_shape, key_shape, need_dx):
    """What is computed anew on the way back takes time here and counts no operations."""
    import torch
    shapes = query_shape, key_shape, key_shape
    query, key, value = (torch.randn(shape, dtype=dtype, requires_grad=need_dx) for shape in shapes)
    dy = torch.randn(query_shape, dtype=dtype)

    def both():
        y = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        if need_dx:
            torch.autograd.grad(y, (query, key, value), dy)

    return shortest(both), 4 * query.numel() * key_shape[2] * (3 if need_dx else 1)


def products(case: Case):
    """Of an update: ms and operations of each kind of product by itself."""
    import torch
    torch.set_num_threads(1)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[case.dtype]
    timers = {"convolutions": time_convolution, "matrix products": time_product, "attention": time_attention}
    sums = {kind: [0.0, 0.0] for kind in timers}
    for (kind, *shape), count in calls_of(case).items():
        with torch.set_grad_enabled(kind == "attention"):
            seconds, operations = timers[kind](dtype, *shape)
        sums[kind][0] += 1000 * count * seconds
        sums[kind][1] += count * operations
    return sums


# --- children ---------------------------------------------------------------------------------------------------------

def in_child(side: str, case: Case, folder: pathlib.Path):
    """Runs one side in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, side, json.dumps(dataclasses.asdict(case)), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_side(side: str, case: Case, folder: pathlib.Path):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the children inherit it
    if side in (MODEL, RATE):
        return {MODEL: make_model, RATE: products}[side](case)
    return {INPUTS: make_inputs, OURS: ours, PEER: peer}[side](folder, case)


if __name__ == "__main__":
    print(json.dumps(run_side(sys.argv[1], Case(**json.loads(sys.argv[2])), pathlib.Path(sys.argv[3]))))
