"""Options of pictures with captions that cannot be as they are given."""

import pytest
from captioned import run_captioned
from pictures import noise, run_images, write_tree


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "64"], "--size is for classes: with captions there is --resolution"),
        (["--masks", "False"], "--masks takes no value, remove False: it is on where it is given"),
        (["--masks=False"], "argument --masks: ignored explicit argument 'False'"),
        (["--bucket-step", "no"], "argument --bucket-step: invalid number value: 'no'"),
        (["--bucket-step", "128"], "--resolution is smaller than --bucket-step 128"),
        (["--bucket-min", "12"], "--bucket-min and --bucket-max must be multiples of --bucket-step 8"),
        (["--bucket-max", "32"], "--bucket-min 32 and --bucket-max 32 must have --resolution between them"),
        (["--no-buckets", "--bucket-min", "8"], "--bucket-min has no meaning with --no-buckets"),
        (["--no-buckets", "--resolution", "60"], "must be of multiples of --bucket-step 8"),
        (["--caption-extension", "txt"], "txt is no extension, such as .txt"),
        (["--caption-encoding", "utf-7"], "argument --caption-encoding: invalid choice: 'utf-7'"),
        (["--model", "x"], "argument --model: not allowed with argument --tokenizer"),
        (["--columns", "label=x"], "--columns label=x: give MEANING=KEY, the meaning one of file, caption"),
    ],
)
def test_options(tmp_path, options, message):
    """The third and fourth are SimpleTuner 1139: a word is no switch."""
    write_tree(tmp_path / "in", {"a.png": noise(1, 8, 8), "a.txt": b"x"})
    outcome = run_captioned(tmp_path / "in", tmp_path / "o.h5", *options)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (64, "", 1) and message in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "in"]


def test_options_without_a_tokenizer(tmp_path):
    write_tree(tmp_path / "in", {"a/a.png": noise(1), "b/b.png": noise(2)})
    outcome = run_images(tmp_path / "in", "--output", tmp_path / "o.h5", "--resolution", "64")
    assert outcome.code == 64
    assert "--resolution is for pictures with captions: give --model or --tokenizer, too" in outcome.err
