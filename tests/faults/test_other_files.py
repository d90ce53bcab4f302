"""A rank that sees other files than the rest, as after a copy that missed a node: all ranks end, nothing is trained,
and the message says which file differs on which ranks."""
import shutil
import stat

import pytest
from harness import Workspace, execute, expect_refusal
from hostile_hdf5 import DATASETS
from reference import make_documents, make_model, write_dataset

BAD_INPUT, BAD_CONFIG = 65, 78


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    return Workspace.create(tmp_path_factory.mktemp("template"), program)


@pytest.fixture
def space(template, tmp_path):
    """Each rank finds its files in view-RANK/, through a wrapper around the program."""
    space = template.copy(tmp_path)
    for rank in range(3):
        view = tmp_path / f"view-{rank}"
        view.mkdir()
        for name in ("base", "train.h5", "config.yaml"):
            source = tmp_path / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, view / name)
    return space


def train(space):
    """Under mpirun, each rank in its own folder: the paths are the same, the files are not."""
    space.write_config(run={"output_dir": str(space.output), "threads": 1, "deadline_seconds": 15},
                       model__path="base", data__train="train.h5")
    for rank in range(3):
        view = space.folder / f"view-{rank}"
        if not (view / "own-config").exists():
            shutil.copy(space.config, view / "config.yaml")
    wrapper = space.folder / "rank.sh"
    wrapper.write_text(f'#!/bin/sh\ncd "{space.folder}/view-$OMPI_COMM_WORLD_RANK" && exec "{space.program}" "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return execute(["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "3", wrapper, "train", "config.yaml"])


def own_config(change):
    def spoil(space, view):
        space.write_config(run={"output_dir": str(space.output), "threads": 1, "deadline_seconds": 15},
                           model__path="base", data__train="train.h5")
        text = space.config.read_text()
        assert change[0] in text
        (view / "config.yaml").write_text(text.replace(*change))
        (view / "own-config").write_text("")
    return spoil


def scaled_weights(space, view):
    model = make_model("llama")
    for parameter in model.parameters():
        parameter.data.mul_(1.25)
    model.save_pretrained(view / "base")


def other_eps(space, view):
    path = view / "base" / "config.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e-06'))


def reversed_document(space, view):
    documents = make_documents(40, 4, 60)
    documents[7] = documents[7][::-1]
    write_dataset(view / "train.h5", documents)


# What rank 1 has instead. The same sizes and headers everywhere: only the contents tell.
CONTENTS = {
    "weights": (scaled_weights, ["base", "rank 1 is not the file"]),
    "model-config": (other_eps, ["base", "rank 1 is not the file"]),
    "tokens": (reversed_document, ["train.h5", "rank 1 is not the file"]),
    "longer-data-set": (lambda space, view: write_dataset(view / "train.h5", make_documents(41, 4, 60)), ["train.h5"]),
}


def test_same_files_in_other_places(space):
    outcome = train(space)
    assert outcome.code == 0, outcome.stderr[-2000:]


@pytest.mark.parametrize("change, words", [pytest.param(*value, id=name) for name, value in CONTENTS.items()])
def test_other_contents(space, change, words):
    change(space, space.folder / "view-1")
    outcome = train(space)
    expect_refusal(outcome, BAD_INPUT, words)
    assert not space.output.exists()


def test_message_names_the_ranks(space):
    scaled_weights(space, space.folder / "view-1")
    expect_refusal(train(space), BAD_INPUT, ["base", "rank 1"])


def damaged(name):
    return lambda space, view: DATASETS[name][0](view / "train.h5")


DAMAGED = {
    "no-data-set": (damaged("missing"), ["rank 1", "train.h5"]),
    "truncated-data-set": (damaged("truncated-half"), ["rank 1", "train.h5"]),
    "no-model": (lambda space, view: shutil.rmtree(view / "base"), ["rank 1", "base"]),
    "no-model-config": (lambda space, view: (view / "base" / "config.json").unlink(), ["rank 1", "config.json"]),
}


@pytest.mark.parametrize("change, words", [pytest.param(*value, id=name) for name, value in DAMAGED.items()])
def test_file_is_bad_on_one_rank(space, change, words):
    change(space, space.folder / "view-1")
    outcome = train(space)
    expect_refusal(outcome, BAD_INPUT, words)
    assert not space.output.exists()


CONFIGS = {
    "other-rate": ("lr: 0.003", "lr: 0.004"),
    "other-batch": ("global: 6", "global: 12"),
    "other-budget": ("budget: 6 steps", "budget: 4 steps"),
    "other-adapter": ("rank: 4", "rank: 8"),
    "other-micro": ("micro: 2", "micro: 3"),
}


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in CONFIGS.items()])
def test_other_config(space, change):
    own_config(change)(space, space.folder / "view-1")
    outcome = train(space)
    expect_refusal(outcome, BAD_CONFIG, ["config", "rank 1", change[1].split(":")[0]])


def test_config_is_bad_on_one_rank(space):
    own_config(("budget: 6 steps", "budget: 6 parsecs"))(space, space.folder / "view-1")
    outcome = train(space)
    expect_refusal(outcome, BAD_CONFIG, ["config.yaml", "budget"])
