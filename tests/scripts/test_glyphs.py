"""The glyph set: from folders and packages of fonts to the two trees, and what is refused."""

import font_letters
import glyphs
import numpy
import pytest
from deb_packages import PackageError, unpack
from font_letters import LETTERS
from made_fonts import make_families
from PIL import Image


@pytest.fixture
def fonts(tmp_path):
    """Twenty families of two styles each; family 7 is Dingbats, family 3 a copy of family 2."""
    folder = make_families(tmp_path / "fonts", {3: ("Family3", 2), 7: ("Dingbats", 7)})
    (folder / "0/link.ttf").symlink_to("Bold.ttf")
    (folder / "0/notes.txt").write_text("no font")
    return folder


def run(capsys, *arguments):
    code = glyphs.main([str(argument) for argument in (*arguments, "--jobs", 1)])
    return code, capsys.readouterr().err


def tree(folder):
    """{path below it: contents} of its pictures."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_the_set(fonts, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("# ornaments\nDingbats\n")
    arguments = ("--fonts", fonts, "--left-out", tmp_path / "list.txt", "--minimum-families", 19,
                 "--validation-fraction", 0.3)  # fmt: skip
    code, err = run(capsys, "--output", tmp_path / "set", *arguments)
    assert code == 0, err
    files = tree(tmp_path / "set")
    names = [f"/family{i}-" for i in range(20)]
    sides = {name: {file.split("/")[0] for file in files if name in file} for name in names}
    assert sides.pop("/family7-") == set() and sides.pop("/family3-") == set()
    assert all(len(side) == 1 for side in sides.values())
    assert {"train", "validation"} == set().union(*sides.values())
    assert len(files) == 18 * 2 * 10 and {file.split("/")[1] for file in files} == set(LETTERS)
    name = next(file for file in files if file.endswith("/D/family5-bold.png"))
    picture = numpy.asarray(Image.open(tmp_path / "set" / name))
    assert (picture == font_letters.read(fonts / "5/Bold.ttf").pictures[3]).all()
    assert "38 fonts of 19 families" in err
    assert "left out: 20 pictures that were there already or are two letters" in err
    assert "2 fonts: draws no letters (by the list)" in err
    assert run(capsys, "--output", tmp_path / "again", *arguments)[0] == 0
    assert tree(tmp_path / "again") == files


def test_errors_leave_nothing(fonts, tmp_path, capsys, monkeypatch):
    assert run(capsys, "--output", fonts, "--fonts", fonts) == (
        65, f"glyphs: {fonts}: exists; remove it, or choose another folder\n",
    )  # fmt: skip
    code, err = run(capsys, "--output", tmp_path / "set", "--fonts", fonts)
    assert code == 65 and "only 20 families of fonts can be used, at least 200" in err
    some = ("--output", tmp_path / "set", "--fonts", fonts, "--minimum-families", 2)
    for wrong in (("--validation-fraction", 1.5), ("--validation-fraction", "nan"), ("--jobs", 0)):
        code = glyphs.main([str(each) for each in (*some, *wrong)])
        assert (code, capsys.readouterr().err) == (
            64, "glyphs: --jobs takes a whole number from 1, --validation-fraction a number from 0 to 1 (see --help)\n",
        )  # fmt: skip
    code, err = run(capsys, *some, "--validation-fraction", 0)
    assert code == 65 and "all designs fell to one side" in err

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    code, err = run(capsys, *some, "--validation-fraction", 0.3)
    assert code == 73 and "No space left on device; choose another place" in err
    assert [path.name for path in tmp_path.iterdir()] == ["fonts"]


def test_lists():
    packages = glyphs.lines_of(glyphs.HERE / "glyphs-packages.txt")
    assert packages == sorted(set(packages)) and all(name.startswith("fonts-") for name in packages)
    families = glyphs.lines_of(glyphs.HERE / "glyphs-left-out.txt")
    assert len(set(families)) == len(families)
    assert families == [font_letters.plain(name) for name in families]  # else none would be found by it


def test_a_real_package(tmp_path):
    try:
        root = unpack("fonts-junction", tmp_path)
    except PackageError as error:
        pytest.skip(f"apt-get cannot download fonts-junction here: {error}")
    files = glyphs.files_of([root])
    found = [each for path in files for each in glyphs.faces_of(path)[0]]
    assert {each.family for each in found} == {"Junction"}
    assert found[0].pictures.max((1, 2)).min() > 200
