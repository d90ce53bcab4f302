"""A configuration as its user wrote it: keys of other trainers, flat or below headings, and this trainer's own. Every
value is text (or a list of it), so that no reader decides what `no`, `010` or `1e-4` might be."""

import dataclasses
import re
import tomllib

import yaml
from lorascale_data.command_line import one_line
from lorascale_data.errors import BAD_INPUT, USAGE, PrepareError

BAD_CONFIG = 78
# Headings below which other trainers' keys may stand: kSections of src/config/aliases.cpp.
SECTIONS = ("model_config", "training_config", "data_config", "lora_config", "dataset_config", "output_config",
            "optimizer_config")  # fmt: skip
MAX_BYTES = 1 << 20
_NOTHING = ("", "~", "null", "Null", "NULL", "none", "None")


@dataclasses.dataclass(frozen=True)
class Given:
    """A value and the key as its user spelled it."""

    place: str
    spelled: str
    value: object

    def refused(self, wanted):
        shown = self.value if isinstance(self.value, str) else _kind(self.value)
        return PrepareError(BAD_CONFIG, f"{self.place}: {self.spelled}: {shown[:80]} is {wanted}")


class Document:
    def __init__(self, path, overrides=()):
        """`overrides`: KEY=VALUE of this trainer's own keys, which stand above what the file says."""
        self.path, self.is_toml = path, path.suffix.lower() == ".toml"
        self._root = _read(path, self.is_toml)
        self._overrides = dict(map(_override, overrides))
        self._flat = list(self._walk())

    def flat(self):
        """{key: value} without headings and without what is empty."""
        found = {}
        for given, key in self._flat:
            if key in found:
                raise self._twice(key, given)
            found[key] = given
        return {key: given.value for key, given in found.items() if not _is_nothing(given.value)}

    def find(self, *names):
        """The one value of keys that mean the same; this trainer's own have dots. None where none has a value."""
        for name in names:
            if name in self._overrides:
                value = self._overrides[name]
                return None if _is_nothing(value) else Given("--set", name, value)
        found = [given for given, key in self._flat if key in names]
        found = [given for given in [*found, *self._own(names)] if not _is_nothing(given.value)]
        if len(found) > 1:
            raise self._twice(found[0].spelled, found[1])
        return found[0] if found else None

    def _walk(self):
        for key, value in self._root.items():
            if isinstance(value, dict) and (self.is_toml or key in SECTIONS):
                for inner, its in value.items():
                    yield Given(str(self.path), f"{key}.{inner}", its), inner
            else:
                yield Given(str(self.path), key, value), key

    def _own(self, names):
        for name in names if not self.is_toml else ():
            value = self._root
            parts = name.split(".")
            for part in parts:
                value = value.get(part) if isinstance(value, dict) else None
            if len(parts) > 1 and value is not None:
                yield Given(str(self.path), name, value)

    def _twice(self, one, other):
        return PrepareError(BAD_CONFIG, f"{self.path}: {one} and {other.spelled} mean the same; keep one of them")


def _read(path, is_toml):
    if not path.is_file():
        raise PrepareError(BAD_INPUT, f"{path}: there is no such configuration, check the path")
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PrepareError(BAD_INPUT, f"{path}: cannot be read ({error.strerror}), check its permissions") from error
    if len(raw) > MAX_BYTES:
        raise PrepareError(BAD_CONFIG, f"{path}: is larger than 1 MiB, which no configuration is")
    try:
        text = raw.decode("utf-8-sig")
        root = _texts(tomllib.loads(text)) if is_toml else yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = one_line(" ".join(str(error).split()))[:160]
        raise PrepareError(BAD_CONFIG, f"{path}: is no {'TOML' if is_toml else 'YAML'} ({reason})") from error
    if not isinstance(root, dict) or not all(isinstance(key, str) for key in root):
        raise PrepareError(BAD_CONFIG, f"{path}: is no configuration: keys with values, as in resolution: 512")
    return root


def _texts(value):
    """TOML's values as YAML has them before anybody takes them for numbers."""
    if isinstance(value, dict):
        return {key: _texts(its) for key, its in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _override(text):
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise PrepareError(USAGE, f"--set {text}: write KEY=VALUE, as in --set optimizer.lr=1e-4")
    try:
        return key, yaml.load(value, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise PrepareError(BAD_CONFIG, f"--set {text}: the value is no YAML") from error


def _is_nothing(value):
    return value is None or value == [] or (isinstance(value, str) and value.strip() in _NOTHING)


def _kind(value):
    return {dict: "a map", list: "a list"}.get(type(value), "a value")


def flag(given):
    """Whether it is on; None where it is not given."""
    if given is None:
        return None
    word = given.value.strip().lower() if isinstance(given.value, str) else ""
    if word not in ("true", "yes", "on", "false", "no", "off"):
        raise given.refused("neither true nor false")
    return word in ("true", "yes", "on")


def count(given, low, high):
    if given is None:
        return None
    text = given.value.strip() if isinstance(given.value, str) else ""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise given.refused(f"no whole number from {low} to {high}")
    return int(text)


def text(given, what="text"):
    if given is None:
        return None
    if not isinstance(given.value, str) or one_line(given.value) != given.value:
        raise given.refused(f"no {what}")
    return given.value.strip()
