"""Where a model keeps its chat templates: in the tokenizer's folder, as a file or in its configuration."""

import dataclasses
import json
from pathlib import Path

from .errors import BAD_INPUT, PrepareError

TOKEN_NAMES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


@dataclasses.dataclass(frozen=True)
class Source:
    """A model's templates as found: `named` has "default" and perhaps others, such as tool_use."""

    where: str
    named: dict[str, str]
    tokens: dict[str, str]  # bos_token and so on, which templates write


def find(tokenizer):
    """The Source of a tokenizer's folder (or its tokenizer.json), or None where it has none."""
    folder = Path(tokenizer)
    folder = folder if folder.is_dir() else folder.parent
    config = _json(folder / "tokenizer_config.json")
    named, where = {}, folder / "tokenizer_config.json"
    found = config.get("chat_template")
    if found is None:
        where = folder / "chat_template.json"
        found = _json(where).get("chat_template")
    if isinstance(found, str):
        named["default"] = found
    elif isinstance(found, list):
        named |= {
            entry["name"]: entry["template"]
            for entry in found
            if isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and isinstance(entry.get("template"), str)
        }
    elif isinstance(found, dict):
        named |= {name: text for name, text in found.items() if isinstance(text, str)}
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        named[path.stem] = _text(path)
    if (folder / "chat_template.jinja").is_file():
        where = folder / "chat_template.jinja"
        named["default"] = _text(where)
    if not named:
        return None
    if "default" not in named:
        raise PrepareError(
            BAD_INPUT,
            f"{where}: has the templates {', '.join(sorted(named))} and none named default, give "
            f"one as a file: --chat-template FILE.jinja",
        )
    return Source(str(where), named, tokens_of(folder))


def of_file(path, tokenizer):
    """The Source of a .jinja file."""
    folder = Path(tokenizer)
    tokens = {} if tokenizer == "bytes" else tokens_of(folder if folder.is_dir() else folder.parent)
    return Source(str(path), {"default": _text(Path(path))}, tokens)


def tokens_of(folder):
    """The special tokens' texts, as the tokenizer's folder names them."""
    found = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        contents = _json(folder / name)
        for key in TOKEN_NAMES:
            value = contents.get(key)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                found[key] = value
    return found


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PrepareError(BAD_INPUT, f"{path}: cannot be read ({reason})") from error


def _json(path):
    if not path.is_file():
        return {}
    try:
        contents = json.loads(_text(path))
    except ValueError as error:
        raise PrepareError(
            BAD_INPUT, f"{path}: cannot be read ({error}), fetch it again"
        ) from error
    return contents if isinstance(contents, dict) else {}
