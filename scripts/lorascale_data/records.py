"""Raw records to segments of text: what kind of record it is, what of it is target.

Records are known by their keys: messages, conversations (ShareGPT), instruction + output (Alpaca),
prompt + completion, text. What is not as it should be raises RecordError; whoever calls knows the
place.
"""

import dataclasses
import json

from .chat import Conversation, Segment
from .errors import RecordError

# Of "messages"; whether a template renders them is its own affair.
ROLES = {
    role: role
    for role in ("system", "developer", "user", "assistant", "tool", "function", "ipython", "observation")
}
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "system": "system",
}


@dataclasses.dataclass(frozen=True)
class Document:
    """What becomes one document: `plain` text gets the tokenizer's begin and end, `answer`
    documents (prompt and completion) too; a `chat` carries its template's own."""

    kind: str  # plain, answer, chat
    segments: list[Segment]
    messages: tuple[str, ...] = ()  # of a chat: its texts without the template


def parse_text(raw):
    """[documents] of a piece of plain text: none where it holds nothing but white space. Line ends
    become \\n."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start)
        where = f" {line} lines further on" if line else ""
        raise RecordError(
            f"not UTF-8{where} (byte {raw[error.start]:#04x}), convert it (iconv -t UTF-8)"
        ) from error
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _plain(text)


def parse_json(raw, required_kind, template):
    """[documents] of a JSON record: none where its text is empty, several where a chat template
    needs one for each answer. `template` (chat.Renderer) renders chats and, if given, all questions
    and answers; `required_kind` (a name of sources.RECORD_FORMATS) or None for any."""
    try:
        record = json.loads(raw.rstrip())  # or the end of a line would count as a column
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 ({error.reason}), convert it (iconv -t UTF-8)") from error
    except json.JSONDecodeError as error:
        raise RecordError(
            f"not valid JSON ({error.msg}, column {error.colno}), mend the line"
        ) from error
    except (RecursionError, ValueError) as error:
        raise RecordError(f"not valid JSON ({error}), mend the line") from error
    if not isinstance(record, dict):
        raise RecordError("is no JSON object, write {...} with named values")
    kind = required_kind or kind_of(record)
    documents = PARSERS[kind](record, template)
    for document in documents:
        for segment in document.segments:
            _check_unicode(segment.text)
    return documents


def kind_of(record):
    if "messages" in record:
        return "messages"
    if "conversations" in record:
        return "sharegpt"
    if "instruction" in record and "output" in record:
        return "alpaca"
    if "prompt" in record and "completion" in record:
        return "prompt-completion"
    if "text" in record:
        return "text"
    keys = ", ".join(sorted(map(str, record))[:6]) or "none"
    raise RecordError(
        f"keys {keys[:80]}: give text; prompt and completion; instruction and output; messages; or "
        f"conversations"
    )


def _string(record, key, optional=False):
    value = record.get(key)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        found = "missing" if key not in record else f"a {_json_type(value)}"
        raise RecordError(f'"{key}" is {found}, it must be a string')
    return value


def _json_type(value):
    names = {dict: "object", list: "list", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number" if isinstance(value, int | float) else "string")


def _check_unicode(text):
    # "\ud800" is valid JSON but no text: it has no UTF-8 form.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(
            f"half a surrogate pair ({error.object[error.start]!r}), remove it"
        ) from error


def _plain(text):
    return [Document("plain", [Segment(text, True)])] if text and not text.isspace() else []


def _text(record, _template):
    return _plain(_string(record, "text"))


def _answer(prompt, completion, template, system=None):
    if not completion.strip():
        raise RecordError("the answer is empty, there is nothing to learn")
    if template is None:
        segments = [Segment(prompt, False), Segment(completion, True)]
        return [Document("answer", [segment for segment in segments if segment.text])]
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    messages.append({"role": "assistant", "content": completion})
    learn = [message["role"] == "assistant" for message in messages]
    return _rendered(Conversation(messages, learn), template)


def _rendered(conversation, template):
    rendered = template.render(conversation)
    return [Document("chat", segments, conversation.texts) for segments in rendered]


def _prompt_completion(record, template):
    return _answer(_string(record, "prompt"), _string(record, "completion"), template)


def _alpaca(record, template):
    instruction, output = _string(record, "instruction"), _string(record, "output")
    given = _string(record, "input", optional=True)
    system = _string(record, "system", optional=True)
    if template is not None:
        prompt = f"{instruction}\n\n{given}" if given.strip() else instruction
        return _answer(prompt, output, template, system)
    parts = [system] if system.strip() else []
    parts.append(f"### Instruction:\n{instruction}")
    if given.strip():
        parts.append(f"### Input:\n{given}")
    return _answer("\n\n".join([*parts, "### Response:\n"]), output, None)


# Keys of a record that its messages are made of, or that say what to learn; the rest goes to the
# template by its name.
_TAKEN = ("messages", "conversations")
# Switches of a message: whether its answer is a target.
_SWITCHES = ("weight", "loss", "train")


def _chat(record, key, role_key, content_key, roles, template):
    if template is None:
        raise RecordError(
            "a chat needs --chat-template: give the one of your model (chatml, llama3, ...)"
        )
    entries = record.get(key)
    if not isinstance(entries, list) or not entries:
        raise RecordError("the conversation must be a list with at least one message")
    messages, learn = [], []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise RecordError(f"message {number} is a {_json_type(entry)}, it must be an object")
        try:
            message = _message(entry, role_key, content_key, roles)
            learn.append(_learns(entry, message["role"]))
        except RecordError as error:
            raise RecordError(f"message {number}: {error}") from None
        if message["role"] == "system" and messages:
            raise RecordError(f"message {number}: a system message must come first")
        messages.append(message)
    if not any(learn):
        raise RecordError("no message of the assistant, so nothing to learn; remove the record")
    extras = {name: value for name, value in record.items() if name not in _TAKEN}
    return _rendered(Conversation(messages, learn, extras), template)


def _message(entry, role_key, content_key, roles):
    """A message as templates take it: role, content and every other key that it carries."""
    role = _string(entry, role_key)
    if role not in roles:
        usual = "human and gpt" if roles is SHAREGPT_ROLES else "system, user and assistant"
        raise RecordError(f"unknown role {role[:40]!r}, use {usual}")
    role = roles[role]
    calls = role == "assistant" and bool(entry.get("tool_calls"))
    content = None if calls and entry.get(content_key) is None else _content(entry, content_key)
    if role == "assistant" and not calls and not content.strip():
        raise RecordError("the answer is empty, there is nothing to learn")
    known = (role_key, content_key, *_SWITCHES)
    message = {"role": role} if content is None else {"role": role, "content": content}
    return message | {name: value for name, value in entry.items() if name not in known}


def _learns(entry, role):
    """Whether a message is a target: answers are, but for those that a switch leaves out."""
    weight = entry.get("weight")  # of an answer, as fine-tuning services write it
    if role == "assistant" and weight not in (None, 0, 1):
        raise RecordError(f'"weight" is {weight!r}, it must be 0 or 1')
    learn = role == "assistant" and weight != 0
    for switch in ("loss", "train"):
        value = entry.get(switch)
        if value not in (None, True, False):
            raise RecordError(f'"{switch}" is {value!r}, it must be true or false')
        if value and role != "assistant":
            raise RecordError(
                f'"{switch}" is true for a message of role {role!r}, only answers are learnt '
                f"(--learn everything takes every token)"
            )
        learn = learn and value is not False and value != 0
    return learn


def _content(entry, key):
    """A string, or a list of text parts as some services write it."""
    value = entry.get(key)
    if isinstance(value, list) and value:
        if all(isinstance(part, dict) and part.get("type") == "text" for part in value):
            return "".join(_string(part, "text") for part in value)
        raise RecordError(f'"{key}" holds parts that are no text, only text can be learnt')
    return _string(entry, key)


def _messages(record, template):
    return _chat(record, "messages", "role", "content", ROLES, template)


def _sharegpt(record, template):
    return _chat(record, "conversations", "from", "value", SHAREGPT_ROLES, template)


PARSERS = {
    "text": _text,
    "prompt-completion": _prompt_completion,
    "alpaca": _alpaca,
    "messages": _messages,
    "sharegpt": _sharegpt,
}
