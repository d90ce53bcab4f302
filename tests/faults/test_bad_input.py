"""Input that cannot be used: one line says what is wrong with which file and what to do, all ranks end with the same
exit code, in time, and no file is touched."""
import json
import shutil

import pytest
from harness import PATIENCE_SECONDS, Workspace, digest, execute, expect_refusal, mpirun
from hostile_hdf5 import DAMAGED_BLOCKS, DATASETS, SPECIAL_FILES, special_file
from hostile_safetensors import MODEL_CONFIG, SAFETENSORS, SHARDS
from reference import add_adapter, make_model

BAD_INPUT, BAD_CONFIG, CANNOT_WRITE, USAGE = 65, 78, 73, 64


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    space = Workspace.create(tmp_path_factory.mktemp("template"), program)
    add_adapter(make_model("llama"), "all-linear").save_pretrained(space.folder / "adapter")
    return space


@pytest.fixture
def space(template, tmp_path):
    return template.copy(tmp_path)


@pytest.fixture(scope="module")
def usual_seconds(template, tmp_path_factory):
    """How long `plan` takes on good input, by ranks."""
    space = template.copy(tmp_path_factory.mktemp("usual"))
    seconds = {}
    for ranks in (1, 3):
        outcome = execute(mpirun(ranks, space.command("plan")))
        assert outcome.code == 0, outcome.stderr
        seconds[ranks] = outcome.seconds
    return seconds


@pytest.fixture
def refused(space, usual_seconds):
    """Checks a refusal by 1 rank or 3, and that nothing was written or changed."""
    def check(code, words, *more, ranks=(1,), verb="train"):
        before = digest(space.folder)
        for count in ranks:
            outcome = execute(mpirun(count, space.command(verb, *more)))
            expect_refusal(outcome, code, words)
            assert outcome.seconds < usual_seconds[count] + PATIENCE_SECONDS
            assert digest(space.folder) == before
    return check


def table(cases, three=()):
    """One test per case; those named in `three` run on three ranks too."""
    assert set(three) <= set(cases), set(three) - set(cases)
    return [pytest.param(*value, (1, 3) if name in three else (1,), id=name) for name, value in cases.items()]


@pytest.mark.parametrize("spoil, words, ranks", table(SAFETENSORS, [
    "length-beyond-limit", "data-truncated", "duplicate-key", "overlap", "tensor-i64", "tensor-transposed",
    "weight-nan"]))
def test_safetensors(space, refused, spoil, words, ranks):
    spoil(space.base)
    refused(BAD_INPUT, words, ranks=ranks)


@pytest.mark.parametrize("spoil, words, ranks", table(SHARDS, ["shard-missing"]))
def test_shards(space, refused, spoil, words, ranks):
    spoil(space.base)
    refused(BAD_INPUT, words, ranks=ranks)


@pytest.mark.parametrize("spoil, words, ranks", table(MODEL_CONFIG, ["other-family", "layers-huge"]))
def test_model_config(space, refused, spoil, words, ranks):
    spoil(space.base)
    refused(BAD_INPUT, words, ranks=ranks)


@pytest.mark.parametrize("spoil, words, ranks", table(DATASETS, ["truncated-half", "other-version", "offsets-end"]))
def test_dataset(space, refused, spoil, words, ranks):
    spoil(space.data)
    refused(BAD_INPUT, ["train.h5", *([words] if isinstance(words, str) else words)], ranks=ranks)


@pytest.mark.parametrize("spoil, words, ranks", table(DAMAGED_BLOCKS, ["token-beyond-vocabulary"]))
def test_block_of_dataset(space, spoil, words, ranks):
    spoil(space.data)
    before = digest(space.base), digest(space.data.parent)["train.h5"]
    for count in ranks:
        expect_refusal(space.train(ranks=count), BAD_INPUT, words)
        assert not space.checkpoints()
        assert (digest(space.base), digest(space.data.parent)["train.h5"]) == before


@pytest.mark.parametrize("spoil, words", [
    pytest.param(spoil, words, id=name) for name, (spoil, words) in DATASETS.items()
    if name in ("truncated-half", "other-version", "offsets-end", "tokens-float")])
def test_validation_set(space, refused, spoil, words):
    validation = space.folder / "validation.h5"
    shutil.copy(space.data, validation)
    spoil(validation)
    refused(BAD_INPUT, "validation.h5", "--set", f"data.validation={validation}")


@pytest.mark.parametrize("kind", SPECIAL_FILES)
@pytest.mark.parametrize("file", ["config.yaml", "base/config.json", "base/model.safetensors", "train.h5"])
def test_special_files(space, refused, file, kind):
    special_file(kind)(space.folder / file)
    missing = {"base/model.safetensors": "base"}.get(file, file) if "link" in kind else file
    refused(BAD_INPUT, missing, ranks=(1, 3) if kind == "fifo" else (1,))


def bomb(depth=9, width=9):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    return "\n".join(lines)


# What is put in front of a sound configuration, or (with None) in its place.
YAML_TEXTS = {
    "unknown-key": ("optimiser: {lr: 1}\n", ["optimiser", "optimizer"]),
    "unknown-nested-key": ("evaluate: {evry: 3}\n", ["evry", "evaluate.every"]),
    "alias-bomb": (bomb() + "\n", "anchor"),
    "alias-of-itself": ("a: &x [*x]\n", "anchor"),
    "tag": ("evaluate: !!python/object:os.system {}\n", "tag"),
    "merge-key": ("<<: {budget: 3}\n", "<<"),
    "duplicate-section": ("run: {seed: 1}\n", "twice"),
    "deep": ("evaluate: " + "[" * 400 + "]" * 400 + "\n", "nested"),
    "deeper": ("evaluate: " + "[" * 100_000 + "\n", ""),
    "two-mebibytes": ("# " + "x" * (2 << 20) + "\n", "1 MiB"),
    "control-byte": ("evaluate: \x01\n", "control byte"),
    "tab": ("evaluate:\n\tevery: 3\n", "tab"),
    "open-quote": ("evaluate: 'x\n", "YAML"),
    "second-document": ("evaluate: {}\n---\n", "second document"),
    "section-as-text": ("evaluate: often\n", "section"),
}


@pytest.mark.parametrize("text, words, ranks", table(YAML_TEXTS, ["unknown-key", "alias-bomb"]))
def test_yaml(space, refused, text, words, ranks):
    space.config.write_text(text + space.config.read_text())
    refused(BAD_CONFIG, ["config.yaml:", *([words] if isinstance(words, str) else words)], ranks=ranks)


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"just words", b"- 1\n- 2\n", b"run: \xc3\x28\n"])
def test_yaml_that_is_none(space, refused, text):
    space.config.write_bytes(text)
    refused(BAD_CONFIG, "config.yaml:")


ENDLESS = r"((\w|\.)+)+x"  # tries every way to cut a name
SETTINGS = {
    "lr-as-text": (["optimizer.lr=fast"], "optimizer.lr"),
    "lr-nan": (["optimizer.lr=.nan"], "optimizer.lr"),
    "lr-negative": (["optimizer.lr=-1"], "optimizer.lr"),
    "seed-fraction": (["run.seed=1.5"], "run.seed"),
    "seed-beyond-64-bits": (["run.seed=99999999999999999999999"], "run.seed"),
    "list-for-number": (["batch.global=[1, 2]"], "batch.global"),
    "map-for-number": (["batch.global={a: 1}"], "batch.global"),
    "dropout-of-one": (["adapter.dropout=1"], "adapter.dropout"),
    "rank-zero": (["adapter.rank=0"], "adapter.rank"),
    "keep-one": (["checkpoint.keep=1"], "checkpoint.keep"),
    "budget-without-unit": (["budget=3 parsecs"], "budget"),
    "budget-zero": (["budget=0 steps"], "budget"),
    "budget-in-minutes": (["budget=3 minutes", "schedule.name=cosine"], "budget"),
    "micro-does-not-divide": (["batch.global=10", "batch.micro=3"], ["batch.micro 3", "2 or 5", "9 or 12"]),
    "micro-above-global": (["batch.global=4", "batch.micro=8"], ["batch.micro 8", "batch.global 4"]),
    "unknown-schedule": (["schedule.name=cosin"], ["schedule.name", "cosine"]),
    "warmup-beyond-budget": (["schedule.warmup=100 steps"], "warmup"),
    "targets-match-nothing": (["adapter.targets=[w_proj]"], ["w_proj", "q_proj"]),
    "targets-head": (["adapter.targets=[q_proj, lm_head]"], ["lm_head", "no adapter yet", "all-linear", "adapter.type: full"]),
    "targets-embedding": (["adapter.targets='.*(q_proj|embed_tokens)'"], ["embed_tokens", "no adapter yet"]),
    "targets-no-expression": (["adapter.targets='(q_proj'"], ["regular expression", "offset 7"]),
    "targets-endless": ([f"adapter.targets='{ENDLESS}'"], ["adapter.targets", "too complex"]),
    "pattern-endless": (["adapter.rank_pattern={'" + ENDLESS + "': 3}"], ["adapter.rank_pattern", "too complex"]),
    "pattern-unused": (["adapter.rank_pattern={w_proj: 3}"], "w_proj"),
    "unknown-override": (["optimizer.rate=1"], "optimizer.rate"),
    "patience-without-validation": (["evaluate.early_stop.patience=3"], "data.validation"),
}


@pytest.mark.parametrize("overrides, words, ranks", table(SETTINGS, ["micro-does-not-divide", "targets-match-nothing"]))
def test_settings(space, refused, overrides, words, ranks):
    more = [word for override in overrides for word in ("--set", override)]
    refused(BAD_CONFIG, words, *more, ranks=ranks)


# Recipes of lora-scripts say per rank what batch.global says for all: not every one fits every number of ranks.
@pytest.mark.parametrize("ranks", [1, 3])
def test_impossible_batch_triple(space, refused, ranks):
    space.write_config(batch={"global": 8}, batch_size=3, gradient_accumulation_steps=2)
    refused(BAD_CONFIG, "batch", ranks=(ranks,))


@pytest.mark.parametrize("more", [["--set"], ["--sett", "a=b"], ["more.yaml"], ["--ranks", "3"]])
def test_usage(space, refused, more):
    refused(USAGE, "lorascale --help", *more)


OUTPUT_FOLDERS = {
    "a-file": lambda path: path.write_text("mine"),
    "below-a-file": lambda path: (path.parent.rmdir(), path.parent.write_text("mine")),
    "a-device": lambda path: path.symlink_to("/dev/full"),
    "a-fifo": special_file("fifo"),
    "a-dangling-link": special_file("dangling-link"),
    "a-lock-that-is-a-folder": lambda path: (path / ".lock").mkdir(parents=True),
    "a-lock-that-is-a-fifo": lambda path: (path.mkdir(), special_file("fifo")(path / ".lock")),
    "checkpoints-a-file": lambda path: (path.mkdir(), (path / "checkpoints").write_text("mine")),
    "a-log-that-is-a-folder": lambda path: (path / "log.txt").mkdir(parents=True),
    "a-config-that-is-a-folder": lambda path: (path / "config.yaml").mkdir(parents=True),
    "metrics-that-are-a-folder": lambda path: (path / "metrics.jsonl").mkdir(parents=True),
}


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in OUTPUT_FOLDERS.items()])
def test_output_folder(space, make, ranks, usual_seconds):
    output = space.folder / "results" / "run"
    output.parent.mkdir()
    make(output)
    before = {name: kept for name, kept in digest(space.folder).items()}
    outcome = execute(mpirun(ranks, space.command("train", "--set", f"run.output_dir={output}")))
    reads_first = make in (OUTPUT_FOLDERS["checkpoints-a-file"], OUTPUT_FOLDERS["metrics-that-are-a-folder"])
    expect_refusal(outcome, BAD_INPUT if reads_first else CANNOT_WRITE, "results")
    assert outcome.seconds < usual_seconds[ranks] + PATIENCE_SECONDS
    after = digest(space.folder)
    assert {name: after.get(name) for name in before} == before


def adapter_config(**change):
    def spoil(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return spoil


def weights(change):
    def spoil(folder):
        path = folder / "adapter_model.safetensors"
        change(path)
    return spoil


def nan_weight(path):
    from safetensors.numpy import load_file, save_file
    stored = load_file(path)
    next(iter(stored.values()))[0, 0] = float("nan")
    save_file(stored, path)


def wider(path):
    from safetensors.numpy import load_file, save_file
    import numpy as np
    save_file({name: np.concatenate([t, t], axis=1) if "lora_A" in name else t for name, t in load_file(path).items()},
              path)


ADAPTERS = {
    "missing": (lambda folder: shutil.rmtree(folder), BAD_INPUT, "adapter_config.json"),
    "no-weights": (weights(lambda path: path.unlink()), BAD_INPUT, "adapter_model.safetensors"),
    "truncated": (weights(lambda path: path.write_bytes(path.read_bytes()[:-1])), BAD_INPUT, "cut short"),
    "nan": (weights(nan_weight), BAD_INPUT, "NaN"),
    "no-json": (lambda folder: (folder / "adapter_config.json").write_text("{"), BAD_INPUT, "adapter_config.json"),
    "other-kind": (adapter_config(peft_type="LOHA"), BAD_INPUT, "peft_type"),
    "dora": (adapter_config(use_dora=True), BAD_INPUT, "use_dora"),
    "bias": (adapter_config(bias="all"), BAD_INPUT, "bias"),
    "pissa": (adapter_config(init_lora_weights="pissa_niter_4"), BAD_INPUT, "init_lora_weights"),
    "alora": (adapter_config(alora_invocation_tokens=[1, 2]), BAD_INPUT, "alora_invocation_tokens"),
    "rank-of-config": (adapter_config(r=3), BAD_INPUT, "has rank 4 where"),
    "pattern": (adapter_config(alpha_pattern={"(": 2}), BAD_INPUT, "alpha_pattern"),
    "pattern-deep": (adapter_config(alpha_pattern={"(" * 10000: 2}), BAD_INPUT, ["alpha_pattern", "can be used"]),
    "pattern-endless": (adapter_config(rank_pattern={ENDLESS: 4}), BAD_INPUT, ["rank_pattern", "too complex"]),
    "patterns-of-gigabytes": (adapter_config(alpha_pattern={f"(ab){{4000}}{i}": 2 for i in range(20000)}), BAD_INPUT,
                              ["alpha_pattern", "memory"]),
    "rank-as-text": (adapter_config(r="4"), BAD_INPUT, "r"),
    "other-shape": (weights(wider), BAD_INPUT, "shape"),
}
MISMATCHES = {
    "other-rank": (["adapter.rank=8", "adapter.alpha=16"], "rank"),
    "other-alpha": (["adapter.alpha=16"], "scaled"),
    "other-targets": (["adapter.targets=[q_proj, v_proj]"], "layers"),
}


@pytest.mark.parametrize("spoil, code, words", [pytest.param(*value, id=name) for name, value in ADAPTERS.items()])
def test_adapter(space, refused, spoil, code, words):
    """One bad adapter, met by train (init_from), generate, inspect and merge."""
    adapter = space.folder / "adapter"
    spoil(adapter)
    refused(code, words, "--set", f"adapter.init_from={adapter}")
    refused(code, words, "--ids", "1 2 3", "--adapter", adapter, verb="generate")
    commands = [[space.program, "merge", "--model", space.base, "--adapter", adapter, "--output", space.folder / "m"]]
    if words not in ("adapter_config.json", "shape"):
        commands.append([space.program, "inspect", adapter])
    before = digest(space.folder)
    for command in commands:
        expect_refusal(execute(command), code, words)
        assert digest(space.folder) == before


@pytest.mark.parametrize("overrides, words, ranks", table(MISMATCHES, ["other-rank"]))
def test_adapter_that_does_not_fit_the_config(space, refused, overrides, words, ranks):
    overrides = [*overrides, f"adapter.init_from={space.folder / 'adapter'}"]
    refused(BAD_CONFIG, ["init_from", words], *[word for o in overrides for word in ("--set", o)], ranks=ranks)


@pytest.mark.parametrize("spoil, words", [
    pytest.param(SAFETENSORS[name][0], SAFETENSORS[name][1], id=name)
    for name in ("data-truncated", "weight-nan", "duplicate-key", "missing")] + [
    pytest.param(MODEL_CONFIG[name][0], MODEL_CONFIG[name][1], id=name) for name in ("hidden-huge", "other-family")])
def test_bad_model_in_other_verbs(space, refused, spoil, words):
    spoil(space.base)
    refused(BAD_INPUT, words, verb="plan")
    refused(BAD_INPUT, words, "--ids", "1 2", verb="generate")
    before = digest(space.folder)
    merge = [space.program, "merge", "--model", space.base, "--adapter", space.folder / "adapter", "--output",
             space.folder / "merged"]
    expect_refusal(execute(merge), BAD_INPUT, words)
    assert digest(space.folder) == before


@pytest.mark.parametrize("ids", ["256", "-1", "x", "99999999999999999999", "1 2 256", ""])
def test_generate_with_bad_ids(space, refused, ids):
    refused(USAGE, "ids", "--ids", ids, verb="generate")


def test_generate_without_or_with_two_prompts(space, refused):
    refused(USAGE, "--prompt", verb="generate")
    refused(USAGE, "--prompt", "--prompt", "a", "--ids", "1", verb="generate")
    refused(BAD_INPUT, "encode_prompt", "--prompt", "a", verb="generate")


@pytest.mark.parametrize("ranks", ["0", "-3", "many"])
def test_plan_for_impossible_ranks(space, refused, ranks):
    refused(USAGE, "ranks", "--ranks", ranks, verb="plan")


@pytest.mark.parametrize("name, spoil", [(name, DATASETS[name][0]) for name in (
    "truncated-half", "offsets-end", "external-storage", "bomb")])
def test_inspect_data_set(space, name, spoil):
    spoil(space.data)
    expect_refusal(execute([space.program, "inspect", space.data]), BAD_INPUT, "train.h5")


@pytest.mark.parametrize("kind", SPECIAL_FILES)
def test_inspect_special_files(space, kind):
    for name in ("it.h5", "it.safetensors"):
        special_file(kind)(space.folder / name)
        expect_refusal(execute([space.program, "inspect", space.folder / name]), BAD_INPUT, name)


def test_merge_leaves_what_is_there(space):
    other = space.folder / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    merge = [space.program, "merge", "--model", space.base, "--adapter", space.folder / "adapter", "--output"]
    before = digest(space.folder)
    expect_refusal(execute([*merge, other]), CANNOT_WRITE, "not an empty folder")
    expect_refusal(execute([*merge, other / "mine.txt"]), CANNOT_WRITE, "mine.txt")
    expect_refusal(execute([*merge, other / "mine.txt" / "deeper"]), CANNOT_WRITE, "mine.txt")
    expect_refusal(execute([*merge, "/dev/full"]), CANNOT_WRITE, "/dev/full")
    assert digest(space.folder) == before
