"""The pictures of a run, samples/WHEN-NUMBER.png and samples/strengths.png: which there are, what is written in them, and
small copies to show.
Files are taken for what they are only as far as they bear it out: one that is damaged is named and left out."""

import base64
import dataclasses
import io
import re
import stat
import struct
import warnings
from pathlib import Path

STRENGTHS = "strengths.png"  # prompts downwards, the adapter's strengths to the right
NAME = re.compile(r"(before|after|step-(\d{1,15}))-(\d{1,9})\.png")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 8192  # a side, as sample.width and sample.height
MOST_TEXT, MOST_CHUNKS = 1 << 16, 100_000  # bytes; parts of a file


class PictureError(Exception):
    """What is wrong with a file."""


@dataclasses.dataclass(frozen=True)
class Picture:
    path: Path
    when: str  # before, after, step or strengths
    step: int | None  # updates done; None where nobody says
    prompt: str
    negative: str
    settings: str  # "Steps: 20, Sampler: ddim, ..."


@dataclasses.dataclass(frozen=True)
class Row:
    """Pictures of one prompt, made with the same settings and seed: only such are shown side by side."""

    pictures: tuple  # before, those of updates in their order, after

    @property
    def first(self):
        return self.pictures[0]

    @property
    def before(self):
        return self.first if self.first.when == "before" else None

    @property
    def latest(self):
        """What the run came to so far, or None. One after an earlier end is older than those of updates."""
        made = [picture for picture in self.pictures if picture.when != "before"]
        dated = [picture for picture in made if picture.step is not None]
        return (dated or made or [None])[-1]

    def strip(self, most):
        """About evenly spread, with both ends; empty where nothing lies between them."""
        count = len(self.pictures)
        if count < 3:
            return ()
        chosen = sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
        return tuple(self.pictures[i] for i in chosen)


@dataclasses.dataclass
class Pictures:
    folder: Path
    rows: list = dataclasses.field(default_factory=list)
    strengths: Picture | None = None  # its prompts in `prompt`, a line each, its strengths in `settings`
    damaged: dict = dataclasses.field(default_factory=dict)  # a file's name: what is wrong with it

    @property
    def count(self):
        return sum(picture.path.name not in self.damaged for row in self.rows for picture in row.pictures)

    def small(self, picture, edge):
        """The picture as a PIL image of at most `edge` pixels a side, or None: it is damaged, and noted as such."""
        if picture.path.name in self.damaged:
            return None
        try:
            return _decoded(picture.path, edge)
        except PictureError as error:
            self.damaged[picture.path.name] = str(error)
            return None


def read_pictures(folder, last_step):
    """`last_step`: what `after` stands for, or None where the run has not come to its end."""
    pictures = Pictures(folder)
    pictures.strengths = _strengths(pictures)
    rows = {}
    for path in sorted(folder.glob("*.png")) if folder.is_dir() else ():
        name = NAME.fullmatch(path.name)
        if name is None:
            continue
        when, step, number = name[1], name[2], int(name[3])
        step = int(step) if step else {"before": 0, "after": last_step}[when]
        try:
            text = _text_in(path)
        except PictureError as error:
            pictures.damaged[path.name] = str(error)
            continue
        picture = Picture(path, when.split("-")[0], step, *_parts(text))
        rows.setdefault((number, text), []).append(picture)
    for row in rows.values():
        row.sort(key=_order)
    pictures.rows = [Row(tuple(row)) for _, row in sorted(rows.items(), key=lambda item: (item[0][0], _order(item[1][0])))]
    return pictures


def _strengths(pictures):
    path = pictures.folder / STRENGTHS
    if not path.exists():
        return None
    try:
        text = _text_in(path)
    except PictureError as error:
        pictures.damaged[path.name] = str(error)
        return None
    prompts, strengths, block = [], "", []
    for line in text.split("\n"):
        block.append(line)
        if line.startswith("Steps: "):  # the last line of each prompt's
            prompts.append(" ".join(_parts("\n".join(block))[0].split("\n")))
            strengths = line.rpartition(" at ")[2]
            block = []
    return Picture(path, "strengths", None, "\n".join(prompts), "", strengths)


def prompt_of(path):
    """What a PNG file says it was made of; empty where it says nothing."""
    return _parts(_text_in(path))[0]


def _order(picture):
    return ("before", "step", "after").index(picture.when), picture.step or 0


def _parts(text):
    """(prompt, negative prompt, settings) of the text that pictures of Stable Diffusion have."""
    lines = text.split("\n")
    settings = lines.pop() if len(lines) > 1 and lines[-1].startswith("Steps: ") else ""
    at = next((i for i, line in enumerate(lines) if i and line.startswith("Negative prompt: ")), len(lines))
    negative = "\n".join(lines[at:]).removeprefix("Negative prompt: ")
    return "\n".join(lines[:at]), negative, settings


def _text_in(path):
    """What stands in a PNG file that has a beginning and an end, without decoding it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PictureError("is no file")  # a pipe would never end
        with open(path, "rb") as file:
            return _walk(file, path.stat().st_size)
    except OSError as error:
        raise PictureError(f"cannot be read ({error.strerror})") from error


def _walk(file, size):
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise PictureError("is empty" if size == 0 else "is no PNG file")
    text, begun = "", False
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            raise PictureError("is cut off")
        length, kind = struct.unpack(">I4s", head)
        end = file.tell() + length + 4
        if end > size:
            raise PictureError("is cut off")
        if not begun:
            if kind != b"IHDR" or length < 8:
                raise PictureError("is no PNG file")
            width, height = struct.unpack(">II", file.read(8))
            if not (0 < width <= MOST_PIXELS and 0 < height <= MOST_PIXELS):
                raise PictureError(f"says to be {width} x {height} pixels; at most {MOST_PIXELS} a side are shown")
            begun = True
        elif kind in (b"tEXt", b"iTXt") and length <= MOST_TEXT:
            text = text or _text_of(kind, file.read(length))
        elif kind == b"IEND":
            return text
        file.seek(end)
    raise PictureError(f"has over {MOST_CHUNKS:,} parts")


def _text_of(kind, data):
    keyword, _, text = data.partition(b"\0")
    if keyword != b"parameters":
        return ""
    if kind == b"tEXt":
        return text.decode("latin-1")
    if text[:1] != b"\0":  # compressed, which the trainer does not write
        return ""
    return text[2:].split(b"\0", 2)[-1].decode("utf-8", errors="replace")


def _decoded(path, edge):
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as file:
                file.verify()  # its sums, which decoding passes over
            with Image.open(path, formats=["PNG"]) as file:
                image = file.convert("RGB")
        image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
        return image
    except MemoryError as error:
        raise PictureError("does not fit into memory") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        reason = " ".join(str(error).split())[:80].replace(str(path), "the file") or type(error).__name__
        raise PictureError(f"is damaged ({reason})") from error


def data_uri(image):
    """PNG where that is no larger, as for drawings; else JPEG."""
    forms = []
    for form, options in (("png", {}), ("jpeg", {"quality": 88})):
        out = io.BytesIO()
        image.save(out, form.upper(), **options)
        forms.append((len(out.getvalue()), form, out.getvalue()))
    _, form, data = min(forms, key=lambda each: each[0])
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"
