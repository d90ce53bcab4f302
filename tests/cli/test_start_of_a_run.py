"""What is looked at before or while a run goes on: tokenizers, targets, types and lengths that fit badly, and cadences of 0."""
import hashlib
import pathlib
import re

import numpy as np
import pytest
from harness import Workspace, edit_dataset, expect_refusal
from reference import make_documents, metrics, write_dataset

BAD_INPUT = 65
OURS, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    space = Workspace.create(tmp_path_factory.mktemp("start"), program)
    write_dataset(space.folder / "validation.h5", make_documents(8, 4, 60, seed=1))
    return space


@pytest.fixture
def space(template, tmp_path):
    return template.copy(tmp_path)


def with_validation(space, **more):
    space.write_config(data__validation=str(space.folder / "validation.h5"), **more)


def made_with(path, tokenizer):
    edit_dataset(path, lambda file: file.attrs.update({"tokenizer_sha256": tokenizer}))


@pytest.mark.parametrize("ranks", [1, 2])
def test_sets_of_two_tokenizers_are_refused(space, ranks):
    with_validation(space)
    made_with(space.data, OURS)
    made_with(space.folder / "validation.h5", OTHER)
    expect_refusal(space.train(ranks=ranks), BAD_INPUT, ["validation.h5", "another tokenizer than", "train.h5"])
    assert not space.output.exists()


@pytest.mark.parametrize("ours, other", [(OURS, OURS), ("", OTHER), (OURS, "")])
def test_equal_and_unknown_tokenizers_are_taken(space, ours, other):
    with_validation(space, budget="1 steps")
    made_with(space.data, ours)
    made_with(space.folder / "validation.h5", other)
    assert "tokenizer" not in space.must_train().stderr


def test_another_tokenizer_than_the_models_is_a_warning(space):
    tokenizer = space.base / "tokenizer.json"
    tokenizer.write_text("{}")
    space.write_config(budget="1 steps")
    made_with(space.data, OURS)
    assert f"train.h5 was not made with {tokenizer}" in space.must_train(ranks=2).stderr
    made_with(space.data, hashlib.sha256(tokenizer.read_bytes()).hexdigest())
    assert "was not made with" not in space.must_train("--set", f"run.output_dir={space.folder}/again").stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_without_targets_is_none(space, ranks):
    documents = make_documents(40, 4, 60)
    write_dataset(space.data, documents, [np.zeros(len(d)) for d in documents])
    outcome = space.train(ranks=ranks)
    expect_refusal(outcome, BAD_INPUT, ["nothing to train", "40 of 40 rows", "train.h5", "loss_mask", "prepare it again"])
    assert not space.output.exists()  # known before it begins


def test_every_key_of_a_line_is_documented(space):
    write_dataset(space.data, [document % 5 for document in make_documents(40, 4, 60)])  # so that there is a signal
    with_validation(space, noise={"horizon": "200 samples"}, batch={"global": 8, "micro": 1}, budget="60 steps",
                    optimizer__lr=1e-5)
    space.must_train()
    written = {key for line in metrics(space.output) for key in line}
    text = (pathlib.Path(__file__).parents[2] / "docs/running.md").read_text()
    table = text.split("## What is recorded of an update")[1].split("## ")[0].split("|---|---|")[1]
    assert written == set(re.findall(r"`([a-z_]+)`", table))


def test_cadences_of_0_switch_off(space):
    edit_dataset(space.data, lambda file: file.attrs.update({"tokenizer_sha256": "bytes"}))
    with_validation(space, evaluate={"every": 0}, sample={"every": 0, "prompts": ["ab"]})
    outcome = space.must_train()
    assert not any("val_loss" in line for line in metrics(space.output))
    assert "validation after" not in outcome.stderr
    assert not (space.output / "samples").exists() and not (space.output / "best").exists()
    assert "sample.prompts [ab] has no effect: sample.every is 0" in outcome.stderr
    space.must_train("--set", "evaluate.every=2", "--set", "sample.every=2", "--set",
                     f"run.output_dir={space.folder}/on")
    assert sum("val_loss" in line for line in metrics(space.folder / "on")) == 4
    assert {path.name for path in (space.folder / "on/samples").iterdir()} >= {"before.txt", "after.txt"}


def flags_of_the_processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), None)


@pytest.mark.parametrize("dtype, flags", [("bf16", {"avx512_bf16", "amx_bf16"}), ("fp16", {"avx512_fp16", "amx_fp16"}),
                                          ("fp32", None)])
def test_a_type_that_the_cpu_has_no_instructions_for_is_a_warning(space, dtype, flags):
    processor = flags_of_the_processor()
    if processor is None:
        pytest.skip("not an x86 processor")
    space.write_config(budget="1 steps", model__dtype=dtype)
    slow = flags is not None and not flags & processor
    text = space.must_train(ranks=2).stderr
    assert text.count(f"this CPU has no instructions for {dtype}") == slow
    assert ("model.dtype: fp32" in text) == slow


@pytest.mark.parametrize("length, long", [(256, False), (257, True)])
def test_rows_longer_than_the_model_was_made_for_are_a_warning(space, length, long):
    space.write_config(budget="1 steps", data__sequence_length=length)
    text = space.must_train(ranks=2).stderr
    assert text.count(f"data.sequence_length {length} is more than the 256 positions") == long
