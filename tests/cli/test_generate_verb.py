"""generate and merge: where text ends, which adapter is applied, and what is said of an adapter for another base."""
import json
import re
import shutil

import pytest
from harness import Workspace, digest, edit_dataset, execute, give_text
from reference import VOCABULARY, add_adapter, make_model

PROMPT = "10 20 30"
TOKENS = 16


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    """The data set speaks bytes and shows each token as two hexadecimal digits."""
    space = Workspace.create(tmp_path_factory.mktemp("generate"), program)
    add_adapter(make_model("llama"), "all-linear").save_pretrained(space.folder / "adapter")
    (space.base / "generation_config.json").unlink(missing_ok=True)
    edit_dataset(space.data, give_text)
    return space


@pytest.fixture
def space(template, tmp_path):
    return template.copy(tmp_path)


def generate(space, *more, ids=PROMPT):
    outcome = execute(space.command("generate", "--ids", ids, "--max-tokens", TOKENS, *more))
    assert outcome.code == 0, outcome.stderr
    return outcome


def ids_of(outcome):
    return [int(word) for word in outcome.stdout.split()]


@pytest.fixture
def free(space):
    """What the model writes where nothing ends it, and a token in the middle of it."""
    ids = ids_of(generate(space))
    assert len(ids) == TOKENS
    return ids, ids.index(ids[7])


def set_end(space, value):
    (space.base / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))


def test_ends_at_the_end_tokens_of_generation_config(space, free):
    ids, at = free
    for value in (ids[at], [VOCABULARY + 9, ids[at]]):
        set_end(space, value)
        outcome = generate(space)
        assert ids_of(outcome) == ids[:at]
        assert "generation_config" not in outcome.stderr


def test_text_beyond_the_context_is_warned_of(space):
    config = space.base / "config.json"
    fields = json.loads(config.read_text())
    asked = len(PROMPT.split()) + TOKENS
    for context, warned in [(asked, False), (asked - 1, True)]:
        config.write_text(json.dumps({**fields, "max_position_embeddings": context}))
        warning = f"more than the {context} positions"
        assert (warning in generate(space).stderr) == warned


def test_damaged_generation_config_is_a_warning(space, free):
    (space.base / "generation_config.json").write_text("{")
    outcome = generate(space)
    assert ids_of(outcome) == free[0]
    assert re.search(r"warning.*generation_config\.json", outcome.stderr)


def test_ends_at_the_end_token_of_the_data_set(space, free):
    """Where the set is opened to show text; bare ids need no data set."""
    ids, at = free
    edit_dataset(space.data, lambda file: file.attrs.modify("eos_id", ids[at]))
    assert generate(space, "--decode").stdout.strip() == bytes(ids[:at]).hex()
    assert ids_of(generate(space)) == ids


def test_samples_of_training_end_at_both(space):
    """Greedy, before the first update: an adapter that is still nothing changes nothing."""
    prompt = ["--prompt", "ab", "--max-tokens", TOKENS]

    def samples():
        shutil.rmtree(space.output, ignore_errors=True)
        space.write_config(sample={"prompts": ["ab"], "max_tokens": TOKENS}, budget="1 steps")
        space.must_train()
        return (space.output / "samples/before.txt").read_text()

    shown = execute(space.command("generate", *prompt)).stdout.strip()
    assert len(shown) == 2 * TOKENS
    ids = list(bytes.fromhex(shown))
    assert samples() == f"> ab\nab\n{shown}\n\n"
    end = ids.index(ids[9])
    edit_dataset(space.data, lambda file: file.attrs.modify("eos_id", ids[end]))
    assert samples() == f"> ab\nab\n{bytes(ids[:end]).hex()}\n\n"
    edit_dataset(space.data, lambda file: file.attrs.modify("eos_id", -1))
    end = ids.index(ids[5])
    set_end(space, ids[end])
    assert samples() == f"> ab\nab\n{bytes(ids[:end]).hex()}\n\n"


def test_without_an_adapter_it_says_so_and_runs_the_base(space):
    outcome = generate(space)
    assert f"{space.output}/adapter does not exist: this is the base model without an adapter" in outcome.stderr
    chosen = generate(space, "--adapter", space.folder / "adapter")
    assert "does not exist" not in chosen.stderr
    assert ids_of(chosen) != ids_of(outcome)


@pytest.mark.parametrize("pattern", [
    {"layers.0.self_attn.v_proj": 1, "self_attn.v_proj": 64}, {"self_attn.v_proj": 64, "layers.0.self_attn.v_proj": 1},
    {"^model.layers.0.self_attn.v_proj": 64}, {r"layers\.[01]\.mlp\.(up|down)_proj$": 64},
    {r"layers\.(?!0\.)\d+\.(?P<part>self_attn|mlp)\.\w++": 64}, {r"(?:self_attn|layers\.1\.mlp)\.[^.]*(?<!v_)proj": 64}])
def test_alpha_patterns_as_peft_reads_them(space, pattern):
    """The first that matches counts, in the order of the file. Merged weights, beside peft's."""
    import peft
    import transformers
    path = space.folder / "adapter/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "alpha_pattern": pattern}))
    done = execute([space.program, "merge", "--model", space.base, "--adapter", space.folder / "adapter", "--output",
                    space.folder / "merged"])
    assert done.code == 0, done.stderr
    base = transformers.AutoModelForCausalLM.from_pretrained(space.base)
    theirs = peft.PeftModel.from_pretrained(base, space.folder / "adapter").merge_and_unload().state_dict()
    ours = transformers.AutoModelForCausalLM.from_pretrained(space.folder / "merged").state_dict()
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() < 1e-5, name


def name_base(space, name):
    path = space.folder / "adapter/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": name}))


@pytest.mark.parametrize("name, other", [
    ("owner/other-model", True), ("owner/base", False), ("BASE/", False), (None, False), ("", False)])
def test_adapter_of_another_base_is_a_warning(space, name, other):
    adapter = space.folder / "adapter"
    name_base(space, "base")
    ids = ids_of(generate(space, "--adapter", adapter))
    name_base(space, name)
    generated = generate(space, "--adapter", adapter)
    assert ids_of(generated) == ids
    merged = execute([space.program, "merge", "--model", space.base, "--adapter", adapter, "--output",
                      space.folder / "merged"])
    assert merged.code == 0 and merged.stdout.startswith("merged 14 layers"), merged.stderr
    begun = space.must_train("--set", f"adapter.init_from={adapter}", "--set", "budget=1 steps")
    for outcome in (generated, merged, begun):
        assert ("made for the base model \"owner/other-model\"" in outcome.stderr) == other, outcome.stderr
    assert "model.safetensors" in digest(space.folder / "merged")


@pytest.mark.parametrize("ids", ["1 2x", "1 two", "two", "1 -2", "999999", "1;2", "3.5"])
def test_what_is_no_list_of_ids_is_refused(space, ids):
    outcome = execute(space.command("generate", "--ids", ids, "--max-tokens", TOKENS))
    assert outcome.code == 64 and "--ids takes token ids from 0 to" in outcome.stderr


def test_ids_may_have_commas_and_spaces_between(space, free):
    assert ids_of(generate(space, ids=" " + PROMPT.replace(" ", ", ") + ",")) == free[0]
