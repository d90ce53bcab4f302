"""The keys of records: which ones say what is learnt, and what becomes of those that nothing used.

A key that a record carries is honoured, or it is refused by its name with a remedy where it would
change what is learnt, or it is counted with an example in the report. Keys without a value (null,
"", [], {}) count as not there: tables fill up their rows with them.
"""

import json

from .errors import RecordError

QUESTIONS = ("prompt", "instruction", "question", "query")
ANSWERS = ("completion", "output", "response", "answer")
CHATS = ("messages", "conversations", "conversation")
SYSTEM = ("system", "system_prompt")
REASONING = ("reasoning_content", "thinking", "reasoning")  # names in use for an answer's thoughts
SWITCHES = ("weight", "loss", "train", "training", "learn")  # whether an answer is learnt

_MEDIA = "only text can be learnt; remove the record"
_LEARN = "what is learnt is said by message (\"train\": false, \"weight\": 0)"
_WHERE = "say where it goes, --columns input={key} puts it behind the question"
_PAIRS = "preferences (DPO, KTO) cannot be learnt; keep the good answers as completions"

# Keys that change what is learnt, and what to do where they cannot be honoured.
CHANGES_TRAINING = {
    "audio": _MEDIA,
    "audios": _MEDIA,
    "chat_template": "give the template as a file to --chat-template",
    "chat_template_kwargs": "it needs a conversation and a template that reads it",
    "choices": _WHERE,
    "context": _WHERE,
    "documents": "it needs a conversation and a template that reads it",
    "function_call": "it belongs into a message of the assistant",
    "functions": "tools need a conversation and a template that reads them",
    "history": "it needs a question, its answer and --chat-template",
    "image": _MEDIA,
    "images": _MEDIA,
    "kto_tag": _PAIRS,
    "labels": "labels of tokens cannot be taken over, give the text",
    "loss": _LEARN,
    "loss_mask": _LEARN,
    "mask": _LEARN,
    "options": _WHERE,
    "prefix": "answers that are begun for the model are not supported; remove it",
    "reasoning": "it needs a conversation and a template that reads it",
    "reasoning_content": "it needs a conversation and a template that reads it",
    "refusal": 'write what the assistant says as "content"',
    "system": "it needs a question and answer or a conversation, and --chat-template",
    "system_prompt": "it needs a question and answer or a conversation, and --chat-template",
    "thinking": "it needs a conversation and a template that reads it",
    "tool_calls": "calls need a conversation and a template that reads them",
    "tools": "tools need a conversation and a template that reads them",
    "train": _LEARN,
    "train_detail": "parts of an answer cannot be left out; split the record",
    "train_on_input": _LEARN,
    "train_on_inputs": _LEARN,
    "training": _LEARN,
    "video": _MEDIA,
    "videos": _MEDIA,
    "weight": _LEARN,
}
PREFERENCES = ("chosen", "rejected")
KNOWN = frozenset(
    [*QUESTIONS, *ANSWERS, *CHATS, *CHANGES_TRAINING, *PREFERENCES]
    + ["text", "input", "segments", "label", "input_ids"]
)

MAX_COLUMNS = 10_000  # of a table
MAX_EXAMPLE = 60
MAX_NAMES = 64  # of unused keys that are told apart


def is_empty(value):
    return value is None or (isinstance(value, str | list | dict) and not value)


def json_type(value):
    names = {dict: "object", list: "list", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number" if isinstance(value, int | float) else "string")


def repeated(names):
    """The first name that is there twice, or None."""
    seen = set()
    return next((name for name in names if name in seen or seen.add(name)), None)


def shown(value):
    """A value, short and in one line of printable characters."""
    text = json.dumps(value, default=str)
    return text if len(text) <= MAX_EXAMPLE else text[: MAX_EXAMPLE - 3] + "..."


class Unused:
    """Keys that nothing used: how often each was met, and the first value with its place."""

    def __init__(self):
        self.found = {}  # name -> [count, example, place]

    def add(self, name, value, place, count=1):
        self._merge(name, count, shown(value), place)

    def update(self, other, place_of):
        """Adds what another one found later in the input; `place_of` makes its places readable."""
        for name, (count, example, place) in other.found.items():
            self._merge(name, count, example, place_of(place))

    def _merge(self, name, count, example, place):
        name = shown(name)[1:-1]
        if name not in self.found and len(self.found) >= MAX_NAMES:
            name = "(others)"
        if name in self.found:
            self.found[name][0] += count
        else:
            self.found[name] = [count, example, place]


class Fields:
    """The keys with a value of one record or message: taken one by one; what nobody took is
    refused or counted at the end."""

    def __init__(self, values, ignored=frozenset()):
        self.all = {key: value for key, value in values.items() if key not in ignored}
        self._rest = {key: value for key, value in self.all.items() if not is_empty(value)}
        self._ignored = [
            (key, value) for key, value in values.items() if key in ignored and not is_empty(value)
        ]

    def __contains__(self, key):
        return key in self._rest

    def peek(self, key):
        return self._rest.get(key)

    def take(self, key, default=None):
        return self._rest.pop(key, default)

    def take_string(self, key, optional=False):
        value = self._rest.pop(key, None)
        if value is None:
            value = self.all.get(key)
        if value is None and optional:
            return ""
        if not isinstance(value, str):
            found = "missing" if key not in self.all else f"a {json_type(value)}"
            raise RecordError(f'"{key}" is {found}, it must be a string')
        return value

    def take_list(self, key):
        """A list, or a list written as JSON in a string, as tables have it."""
        value = parsed(self._rest.pop(key, self.all.get(key)), key)
        if not isinstance(value, list):
            raise RecordError(f'"{key}" is a {json_type(value)}, it must be a list')
        return value

    def names(self):
        return list(self._rest)

    def unused(self):
        """[(key, value)] of what is left; RecordError where that would change what is learnt, which
        `"train_on_inputs": false` and the like do not."""
        for key, value in self._rest.items():
            if key in CHANGES_TRAINING and (value is not False or key in SWITCHES):
                remedy = CHANGES_TRAINING[key].format(key=key)
                raise refusal(key, remedy)
        return [*self._rest.items(), *self._ignored]


def refusal(key, remedy, *beside):
    """What is said of a key (and of others beside it) that cannot be honoured."""
    named = " and ".join(f'"{name}"' for name in (key, *beside))
    ignored = ",".join((key, *beside))
    return RecordError(
        f"{named} cannot be honoured here: {remedy}, or leave out with --ignore {ignored}"
    )


def not_written(template, what):
    """Why `template` cannot honour a key, and what can."""
    if getattr(template, "is_own", False):
        return f"the model's own template writes no {what}"
    return f"this template writes no {what}; use the model's own template"


def parsed(value, key):
    """The value behind a string of JSON; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        if value.lstrip().startswith(("[{'", "{'", "[['")):
            message = f'"{key}" is a Python list written as text; write it with json.dumps'
        else:
            message = f'"{key}" must be a list, or one written as JSON; this string is neither'
        raise RecordError(message) from None
