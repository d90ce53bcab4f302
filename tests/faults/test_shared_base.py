"""model.share: the ranks of a node hold one frozen base together. It changes no bit of a run, takes the memory of one,
and what goes wrong on one rank, death included, ends all and leaves nothing behind."""
import json
import os
import pathlib
import re
import shutil
import signal

import pytest
from harness import Workspace, execute, expect_refusal, mpirun, wait_until
from reference import make_documents, make_model, metrics, write_dataset
from test_resume import ranks_of

BAD_INPUT, BAD_CONFIG = 65, 78
MAPPING = re.compile(r"^[0-9a-f-]+ (\S+) 00000000 (\S+ \d+) +/memfd:lorascale-base", re.MULTILINE)


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    space = Workspace.create(tmp_path_factory.mktemp("template"), program)
    write_dataset(space.folder / "validation.h5", make_documents(9, 4, 60, seed=1))
    return space


@pytest.fixture
def space(template, tmp_path):
    return template.copy(tmp_path)


def results(folder):
    """All that arithmetic leaves behind: losses to the last digit, tensors byte for byte."""
    lines = [{key: line.get(key) for key in ("step", "loss", "val_loss", "grad_norm")} for line in metrics(folder)]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}
    assert any(name.startswith("checkpoints/") for name in files) and "adapter/adapter_model.safetensors" in files
    return lines, files


# 9 documents, in leaves of 2: no two ranks do the same.
@pytest.mark.parametrize("ranks, dtype", [(1, "fp32"), (2, "fp32"), (3, "fp32"), (2, "bf16")])
def test_not_a_bit_differs(space, ranks, dtype):
    def train(share):
        space.output = space.folder / share
        space.write_config(model={"path": str(space.base), "dtype": dtype, "share": share},
                           data__validation=str(space.folder / "validation.h5"), evaluate={"every": "2 steps"},
                           adapter__dropout=0.1)
        outcome = space.must_train(ranks=ranks)
        assert ("one base of" in outcome.stdout + outcome.stderr) == (share == "node" and ranks > 1)
        return results(space.output)

    assert train("node") == train("none")


def mappings(pid):
    return MAPPING.findall(pathlib.Path(f"/proc/{pid}/maps").read_text())


def holds(pid):
    try:
        return bool(mappings(pid))
    except (FileNotFoundError, ProcessLookupError):
        return False


def running(space, share, **changes):
    """A run of two ranks that has come to updates, and its ranks."""
    space.write_config(model__share=share, budget="100000 steps", checkpoint={"every": "0 steps"}, **changes)
    process = space.start(ranks=2)
    wait_until(lambda: space.lines() > 2, process)
    return process, ranks_of(process)


def end(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_all_ranks_map_the_same_memory_read_only(space):
    process, ranks = running(space, "auto")
    found = [mappings(pid) for pid in ranks]
    end(process)
    assert len(ranks) == 2 and found[0] == found[1] and len(found[0]) == 1, found
    assert found[0][0][0] == "r--s"


def test_none_is_none(space):
    process, ranks = running(space, "none")
    found = [mappings(pid) for pid in ranks]
    end(process)
    assert found == [[], []]


def test_full_training_is_not_shared(space):
    space.write_config(adapter={"type": "full"}, optimizer__lr=1e-4)
    outcome = space.must_train(ranks=2)
    assert "share" not in outcome.stderr + outcome.stdout
    expect_refusal(space.train("--set", "model.share=node", ranks=2), BAD_CONFIG,
                   ["model.share: node", "adapter.type full", "auto or none"])


@pytest.mark.parametrize("victims", ["one rank", "all at once"])
def test_killed_ranks_leave_nothing_behind(space, victims):
    process, ranks = running(space, "node")
    maps = "".join(pathlib.Path(f"/proc/{pid}/maps").read_text() for pid in ranks)
    files = {pathlib.Path(path) for path in re.findall(r" (/dev/shm/\S+)", maps)}
    # Those of the library's messages are there with and without a shared base.
    assert "memfd:lorascale-base" in maps and all(path.name.startswith("vader_segment.") for path in files), files
    for pid in ranks[1:] if victims == "one rank" else [*ranks, process.pid]:
        os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    wait_until(lambda: not any(holds(pid) for pid in ranks))  # memory without a name goes with its last process
    if victims == "one rank":
        assert process.returncode != 0 and "rank 1" in errors, errors
        assert not any(path.exists() for path in files)
    for path in files:  # which nobody is left to remove where mpirun is killed, too
        path.unlink(missing_ok=True)


def tensor_at(path, name):
    """Where the bytes of a tensor stand in a .safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8:8 + size])[name]["data_offsets"]
    return 8 + size + begin, 8 + size + end


# Each is read by one rank alone: the first tensor by rank 0, the last one by rank 1.
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_a_damaged_tensor_ends_all_whoever_reads_it(space, name):
    path = space.base / "model.safetensors"
    begin, end = tensor_at(path, name)
    data = bytearray(path.read_bytes())
    middle = (begin + end) // 8 * 4 + 4000  # beyond what the fingerprint samples
    data[middle:middle + 4] = b"\0\0\xc0\x7f"
    path.write_bytes(data)
    space.write_config(model__share="node")
    expect_refusal(space.train(ranks=2), BAD_INPUT, [name, "NaN or infinite"])
    assert not space.output.exists()


def test_files_are_compared_before_one_rank_computes_from_anothers(space):
    """Rank 1 sees another model of the same shapes: without a comparison, each would read half of the mixture."""
    for rank in range(2):
        view = space.folder / f"view-{rank}"
        view.mkdir()
        shutil.copytree(space.base, view / "base")
    model = make_model("llama")
    for parameter in model.parameters():
        parameter.data.mul_(1.25)
    model.save_pretrained(space.folder / "view-1/base")
    space.write_config(model={"path": "base", "dtype": "fp32", "share": "node"})
    wrapper = space.folder / "rank.sh"
    wrapper.write_text(f'#!/bin/sh\ncd "{space.folder}/view-$OMPI_COMM_WORLD_RANK" && exec "{space.program}" "$@"\n')
    wrapper.chmod(0o755)
    outcome = execute(mpirun(2, [str(wrapper), "train", str(space.config)]))
    expect_refusal(outcome, BAD_INPUT, ["base on rank 1 is not the file"])


def test_a_file_that_is_missing_ends_all(space):
    (space.base / "model.safetensors").unlink()
    space.write_config(model__share="node")
    expect_refusal(space.train(ranks=2), BAD_INPUT, ["base", "model.safetensors"])


def test_a_system_that_refuses_is_named_and_auto_goes_on(space):
    """Files no larger than 4.5 MiB, by ulimit -f on one rank: less than the base takes, and more than anything else."""
    make_large(space.base)
    wrapper = space.folder / "rank.sh"
    wrapper.write_text('#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 0 ] && ulimit -f 9216\n'
                       f'exec "{space.program}" "$@"\n')
    wrapper.chmod(0o755)
    for share in ("node", "auto"):
        space.write_config(model__share=share, budget="1 steps")
        outcome = execute(mpirun(2, [str(wrapper), "train", str(space.config)]))
        if share == "node":
            expect_refusal(outcome, BAD_CONFIG, ["model.share: node is not possible here", "rank 0 (", "ulimit -f",
                                                 "auto or none"])
            assert not space.output.exists()
    assert outcome.code == 0, outcome.stderr
    assert "every rank holds the whole model" in outcome.stderr + outcome.stdout


def test_a_small_dev_shm_is_enough(space):
    """Containers have 64 MiB there, or less; what the model takes is not among them."""
    job = " ".join(mpirun(2, space.command("train"))).replace("mpirun", "mpirun --mca btl self,tcp")
    shell = f"mount -t tmpfs -o size=1M tmpfs /dev/shm || exit 99; exec {job}"
    make_large(space.base)
    space.write_config(model__share="node", budget="1 steps")
    outcome = execute(["unshare", "--mount", "sh", "-c", shell])
    if outcome.code in (1, 99) and "lorascale" not in outcome.stderr:
        pytest.skip("needs the right to mount")
    assert outcome.code == 0, outcome.stderr
    assert "one base of" in outcome.stdout + outcome.stderr


def make_large(base):
    """5.8 MiB of weights."""
    import torch
    import transformers
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=256, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256)).save_pretrained(base)
    assert (base / "model.safetensors").stat().st_size > 5 << 20


def test_the_budget_counts_a_ranks_share(space):
    """Two ranks that share fit where each with a base of its own does not; and one byte's share less is too little."""
    make_large(space.base)
    weights = (space.base / "model.safetensors").stat().st_size / 2**20

    def plan(share, budget=0):
        space.output = space.folder / f"plan-{share}-{budget}"
        space.write_config(model__share=share, memory={"budget_mib": budget}, batch={"global": 2, "micro": 1})
        return execute(mpirun(2, space.command("plan"))), space.output

    alone, shared = plan("none"), plan("node")
    assert alone[0].code == 0 and shared[0].code == 0, shared[0].stderr
    bytes_of = [json.loads((folder / "plan.json").read_text())["memory_bytes"] for _, folder in (alone, shared)]
    assert bytes_of[1]["weight_holders"] == 2 and bytes_of[0]["weight_holders"] == 1
    assert bytes_of[0]["weights"] / 2**20 == pytest.approx(weights, rel=0.01)
    assert bytes_of[1]["weights"] == bytes_of[0]["weights"] / 2
    saved = bytes_of[0]["total"] - bytes_of[1]["total"]
    assert saved == pytest.approx(bytes_of[0]["weights"] / 2, rel=0.02)  # measured by the count of tensors
    assert re.search(r"weights [\d.]+ MiB of [\d.]+ MiB shared by 2 ranks of a node", shared[0].stdout)
    # A budget between the two peaks.
    budget = int((bytes_of[0]["total"] + bytes_of[1]["total"]) / 2 / 2**20)
    assert bytes_of[1]["total"] < budget << 20 < bytes_of[0]["total"]
    space.output = space.folder / "run"
    space.write_config(model__share="node", memory={"budget_mib": budget}, batch={"global": 2, "micro": 1})
    space.must_train(ranks=2)
    assert max(line["peak_memory_mib"] for line in metrics(space.output)) <= budget
    outcome, _ = plan("none", budget)
    assert outcome.code != 0 or "does not fit" in outcome.stdout
    outcome, _ = plan("node", 1)
    expect_refusal(outcome, BAD_CONFIG, ["the weights of", "memory.budget_mib"])
