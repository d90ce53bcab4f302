"""plan --headers-only: refuses what train would, in its words, from settings and headers alone; what a login node may do."""
import json

import numpy as np
import pytest
from harness import Workspace, edit_dataset, execute, expect_refusal, replace_dataset
from reference import make_documents, write_dataset

BAD_INPUT, BAD_CONFIG = 65, 78


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    space = Workspace.create(tmp_path_factory.mktemp("headers"), program)
    write_dataset(space.folder / "validation.h5", make_documents(8, 4, 60, seed=1))
    return space


@pytest.fixture
def space(template, tmp_path):
    return template.copy(tmp_path)


def check(space, *more):
    return execute(space.command("plan", "--headers-only", *more))


def test_says_what_was_looked_at_and_writes_nothing(space):
    space.write_config(data__validation=str(space.folder / "validation.h5"))
    outcome = check(space, "--ranks", 3)
    assert outcome.code == 0, outcome.stderr
    assert "for 3 ranks" in outcome.stdout and "40 documents" in outcome.stdout
    assert not space.output.exists()


def other_shape(space):
    path = space.base / "config.json"
    settings = json.loads(path.read_text())
    settings["intermediate_size"] += 2
    path.write_text(json.dumps(settings))


def other_tokenizer(space):
    space.write_config(data__validation=str(space.folder / "validation.h5"))
    edit_dataset(space.data, lambda file: file.attrs.update({"tokenizer_sha256": "a" * 64}))
    edit_dataset(space.folder / "validation.h5", lambda file: file.attrs.update({"tokenizer_sha256": "b" * 64}))


SPOILS = {
    "a misspelt key": (lambda space: space.write_config(optimizer__lrr=1), BAD_CONFIG),
    "keys that contradict each other": (lambda space: space.write_config(batch__micro=4), BAD_CONFIG),
    "no such layer": (lambda space: space.write_config(adapter__targets=["no_proj"]), BAD_CONFIG),
    "a warmup beyond the end": (lambda space: space.write_config(schedule__warmup="7 steps"), BAD_CONFIG),
    "no model": (lambda space: space.write_config(model__path="/nowhere"), BAD_INPUT),
    "no weights": (lambda space: (space.base / "model.safetensors").unlink(), BAD_INPUT),
    "weights of another shape": (other_shape, BAD_INPUT),
    "no data": (lambda space: space.write_config(data__train="/nowhere.h5"), BAD_INPUT),
    "no data set": (lambda space: edit_dataset(space.data, lambda file: file.attrs.update({"format": "x"})), BAD_INPUT),
    "another version": (lambda space: edit_dataset(space.data, lambda file: file.attrs.update({"version": 9})), BAD_INPUT),
    "an empty set": (
        lambda space: edit_dataset(space.data, lambda file: replace_dataset(file, "offsets", np.zeros(1, np.int64))), BAD_INPUT),
    "two tokenizers": (other_tokenizer, BAD_INPUT),
}


@pytest.mark.parametrize("what", SPOILS)
def test_refuses_in_the_words_of_train(space, what):
    spoil, code = SPOILS[what]
    spoil(space)
    outcome = check(space)
    expect_refusal(outcome, code, [])
    assert outcome.messages == space.train().messages


def test_an_adapter_to_begin_from_must_be_there(space):
    space.write_config(adapter__init_from=str(space.folder / "none"))
    expect_refusal(check(space), BAD_INPUT, ["adapter.init_from", "adapter_config.json"])


def test_reads_no_weights_and_no_tokens(space):
    """Damage that train finds when it reads them does not show, so neither is read."""
    weights = space.base / "model.safetensors"
    size = weights.stat().st_size
    with open(weights, "r+b") as file:
        file.seek(size - 64)
        file.write(b"\xff" * 64)  # NaN
    assert check(space).code == 0
    expect_refusal(space.train(), BAD_INPUT, "NaN")
    space = space.copy(space.folder / "again")
    edit_dataset(space.data, lambda file: file["tokens"].__setitem__(slice(0, 4), 60000))
    assert check(space).code == 0
    assert space.train().code == BAD_INPUT
