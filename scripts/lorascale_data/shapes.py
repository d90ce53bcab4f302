"""Which kind of record the keys of one make."""

from .errors import RecordError, ShapeError
from .keys import ANSWERS, CHATS, PREFERENCES, QUESTIONS, SWITCHES, is_empty, refusal

# What --columns may name.
COLUMNS = (
    "prompt", "completion", "input", "system", "history", "messages", "role", "content", "tools",
    "text",
)  # fmt: skip
# The keys of records that are not what they seem once --columns says what is what.
_OTHERS = frozenset([*CHATS, "text", "segments"])
_CLAIMED = {
    "prompt": _OTHERS | {*QUESTIONS},
    "completion": _OTHERS | {*ANSWERS},
    "messages": _OTHERS | {*QUESTIONS, *ANSWERS, "input"},
    "text": _OTHERS | {*QUESTIONS, *ANSWERS, "input"},
}
_TRUTH = {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "false": False, "true": True}
NEEDED = ("prompt", "completion", "messages", "text")  # of COLUMNS: without them there is no record
OF_MESSAGES = ("role", "content")  # of COLUMNS: what keys of messages, not of records, hold
# The keys that a kind of record, asked for with --format, is made of.
KIND_KEYS = {
    "prompt-completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
}


def is_list_of_objects(value):
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def shape_of(fields, kind):
    """(text, chat, answer or segments, and the keys that hold it); `kind` is a name of KIND_KEYS or
    None for any."""
    allowed = KIND_KEYS.get(kind)
    # Keys without a value count only where nothing else says what the record is meant to be.
    shape = _shape_of(fields, fields, allowed) or _shape_of(fields, fields.all, allowed)
    if shape is None:
        raise _no_shape(fields.all, allowed)
    return shape


def _shape_of(fields, present, allowed):
    """The same by those of its keys that are `present`; None where they make no kind."""
    if present is fields.all and isinstance(fields.all.get("text"), str) and allowed is None:
        return ("text",)
    chat = _choose(fields, CHATS, present, allowed)
    if chat is not None:
        return "chat", chat
    question = _choose(fields, QUESTIONS, present, allowed)
    answer = _choose(fields, ANSWERS, present, allowed)
    if question is None and "input" in present and allowed is None:
        question = "input"
    if question is not None and answer is not None:
        return "answer", question, answer
    if "segments" in present and allowed is None:
        return ("segments",)
    return ("text",) if "text" in present and allowed is None else None


def mapped(record, columns):
    """The record with the keys that --columns names under their meanings; keys that would make it
    another kind of record are set aside."""
    columns = [pair for pair in columns if pair[0] not in OF_MESSAGES]
    taken = {source for _, source in columns}
    found = {}
    for meaning, source in columns:
        if source not in record:
            keys = ", ".join(sorted(map(str, record))[:8]) or "none"
            raise RecordError(f'"{source}" of --columns is missing; the keys are {keys[:100]}')
        found[meaning] = record[source]
        if found[meaning] is None and meaning in NEEDED:
            raise RecordError(f'"{source}" of --columns has no value')
    claimed = frozenset().union(*(_CLAIMED.get(meaning, ()) for meaning in found))
    aside = []
    for key, value in record.items():
        if key in taken:
            continue
        if key in found or key in claimed:
            aside += [] if is_empty(value) else [(key, value)]
        else:
            found[key] = value
    return found, aside


def is_wanted(fields):
    """False where the record itself says that it is not to be learnt."""
    wanted = True
    for key in SWITCHES:
        value = fields.peek(key)
        if isinstance(value, str):  # of a table without types
            value = _TRUTH.get(value.strip().lower())
        if key in fields and (not isinstance(value, bool | int | float) or value not in (0, 1)):
            raise RecordError(
                f'"{key}" is {fields.peek(key)!r}, it must be 0 or 1, true or false; or leave it out with '
                f"--ignore {key}"
            )
        if key in fields:
            fields.take(key)
            wanted = wanted and bool(value)
    if isinstance(fields.peek("label"), bool) and not fields.peek("label"):
        if any(key in fields for key in ANSWERS):
            raise refusal("label", "false marks a bad answer (KTO); remove the record")
    return wanted


def _choose(fields, names, present, allowed):
    """Which of the names is present; RecordError where several have a value."""
    found = [name for name in names if name in present and (allowed is None or name in allowed)]
    if len(found) > 1 and present is fields:
        meaning = {QUESTIONS: "prompt", ANSWERS: "completion", CHATS: "messages"}[names]
        raise RecordError(
            f"has {' and '.join(found)}: say which one counts, --columns {meaning}={found[0]}, or "
            f"leave one out with --ignore {found[-1]}"
        )
    return found[0] if found else None


def _no_shape(record, allowed):
    if allowed is not None:
        missing = next(key for key in allowed if key not in record)
        return ShapeError(f'"{missing}" is missing')
    if all(key in record for key in PREFERENCES):
        return ShapeError(
            "chosen and rejected are preferences (DPO), which cannot be learnt; to learn what was "
            "chosen, give --columns prompt=prompt,completion=chosen"
        )
    if "input_ids" in record:
        return ShapeError("input_ids are tokens of some tokenizer already; give the text itself")
    nested = next((key for key, value in record.items() if is_list_of_objects(value)), None)
    if nested is not None and len(record) <= 8:
        nested = nested[:40]
        return ShapeError(
            f'no record itself, but "{nested}" holds objects that may be: write them into a file of '
            f"their own (jq -c '.{nested}[]')"
        )
    keys = ", ".join(sorted(map(str, record))[:6]) or "none"
    return ShapeError(
        f"keys {keys[:80]}: give text; prompt and completion; instruction and output; messages; or "
        f"conversations; or name them with --columns prompt=...,completion=... (text=, messages=)"
    )
