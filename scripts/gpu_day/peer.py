"""The peer of part 7: transformers + peft on the same weights and tokens, eager and compiled; and the machine's ceilings.

    python -m gpu_day.peer '{"model": ..., "tokens": ..., "batch_tokens": ..., ...}'

Prints one JSON object a line as each result is there, so that what was measured stays if the time is over.
"""
import importlib.util
import json
import resource
import statistics
import sys
import time
import warnings

import numpy as np
import torch

from . import cases, shapes


def show(**result):
    print(json.dumps(result), flush=True)


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def median_ms(run, device, repeats=10, warm_up=3):
    times = []
    for i in range(warm_up + repeats):
        wait(device)
        begin = time.perf_counter()
        run()
        wait(device)
        if i >= warm_up:
            times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


def ceilings(device, size, megabytes):
    """Of large bf16 products on random data, and of a copy (bytes read and written)."""
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    product = median_ms(lambda: torch.mm(a, b), device)
    source = torch.randint(0, 255, (megabytes << 20,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = median_ms(lambda: target.copy_(source), device)
    show(kind="ceilings", tflops=2 * size ** 3 / product / 1e9, gbytes=2 * source.nbytes / copy / 1e6)


def product_in_fp32(device):
    """The product that gradients of 16-bit factors are summed by; only CUDA has it under this name."""
    if device != "cuda":
        return
    a, b = (torch.randn(*size, device=device).to(torch.bfloat16) for size in ((64, 8192), (8192, 256)))
    exact = a.double().cpu() @ b.double().cpu()
    scale = a.double().abs().cpu() @ b.double().abs().cpu()
    product = torch.mm(a, b, out_dtype=torch.float32)
    show(kind="product", error=((product.double().cpu() - exact).abs() / scale).max().item())


def wrap(path, device):
    import peft
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # Straight to the card where accelerate is there.
    placed = {"device_map": device} if importlib.util.find_spec("accelerate") else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, attn_implementation="sdpa",
                                                              **placed)
    return peft.get_peft_model(model, peft.LoraConfig(r=shapes.LORA_RANK, lora_alpha=32, lora_dropout=0.05,
                                                      target_modules=cases.LINEARS, task_type="CAUSAL_LM"))


def set_dropout(model, dropout):
    for name, module in model.named_modules():
        if ".lora_dropout." in name and isinstance(module, (torch.nn.Dropout, torch.nn.Identity)):
            parent, _, key = name.rpartition(".")
            model.get_submodule(parent)[key] = torch.nn.Dropout(dropout) if dropout else torch.nn.Identity()


def choose_side(model, side, backend):
    """Layer by layer: they share one graph, and the model's compilation takes seconds instead of minutes."""
    for layer in model.base_model.model.model.layers:
        if side == "compiled":
            layer.compile(backend=backend, dynamic=False)
        else:
            layer._compiled_call_impl = None


def updates(model, optimizer, rows, batch, device):
    """Yields the loss of one update after the other."""
    trained = [p for p in model.parameters() if p.requires_grad]
    position = 0
    while True:
        ids = rows[[(position + i) % len(rows) for i in range(batch)]].to(device)
        position += batch
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()


def profiled(run, device):
    """Kernels and waits of one update, by torch's profiler."""
    if device != "cuda":
        return None, None
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        run()
        wait(device)
    kernels, waits = count_events(found.events())
    return kernels, waits - 1  # the last one is ours


def count_events(events):
    """(kernels, waits) in what torch's profiler saw."""
    kernels = sum(event.device_type == torch.autograd.DeviceType.CUDA and
                  not event.name.lower().startswith(("mem", "gpu mem")) for event in events)
    waits = sum(event.name in ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")
                for event in events)
    return kernels, waits


def measure(side, model, job, row, dropout, profile_it):
    device = job["device"]
    set_dropout(model, dropout)
    torch.manual_seed(0)
    with torch.no_grad():  # every measurement begins at the base model
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0, fused=True)
    rows = torch.from_numpy(np.load(job["tokens"]).astype(np.int64)).view(-1, row)
    model.train()
    steps = updates(model, optimizer, rows, job["batch_tokens"] // row, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses, times = [], []
    begin = time.perf_counter()
    for _ in range(job["warm_up"] + job["updates"]):
        wait(device)
        start = time.perf_counter()
        losses.append(next(steps))
        wait(device)
        times.append(1000 * (time.perf_counter() - start))
        if len(times) > job["warm_up"] + 1 and time.perf_counter() - begin > job["seconds_each"]:
            break
    peak = torch.cuda.max_memory_allocated() / 2 ** 20 if device == "cuda" else \
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    launches, waits = profiled(lambda: next(steps), device) if profile_it else (None, None)
    show(kind="peer", side=side, row=row, dropout=dropout, ms=statistics.median(times[job["warm_up"]:]), losses=losses,
         peak_mib=peak, launches=launches, waits=waits, first_ms=times[0])


def main():
    job = json.loads(sys.argv[1])
    warnings.filterwarnings("ignore")
    ceilings(job["device"], job["matrix"], job["copy_megabytes"])
    product_in_fp32(job["device"])
    begin = time.perf_counter()
    model = wrap(job["model"], job["device"]).to(job["device"])
    show(kind="loaded", seconds=time.perf_counter() - begin)
    sides = ["eager", "compiled"]
    for number, (row, dropout) in enumerate(job["grid"]):
        for side in list(sides):
            choose_side(model, side, job["backend"])
            try:
                measure(side, model, job, row, dropout, number == 0)
            except Exception as error:  # out of memory, or no compiler for the compiled side
                first_line = (str(error).splitlines() or [""])[0]
                show(kind="failed", side=side, row=row, dropout=dropout, note=f"{type(error).__name__}: {first_line}"[:200])
                model.zero_grad(set_to_none=True)
                if not isinstance(error, torch.OutOfMemoryError):
                    sides.remove(side)  # it would only happen again, and compiling takes long
                if job["device"] == "cuda":
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
