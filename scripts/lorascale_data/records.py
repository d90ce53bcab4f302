"""Raw records to segments of text: what kind of record it is, what of it is target.

Records are known by their keys: messages or conversations, a question (prompt, instruction,
question, query) and its answer (completion, output, response, answer), segments, text. What is not
as it should be raises RecordError; whoever calls knows the place.
"""

import dataclasses
import json

from .chat import Segment
from .conversation import Builder, tools_of
from .errors import RecordError
from .keys import (
    ANSWERS,
    CHATS,
    PREFERENCES,
    QUESTIONS,
    REASONING,
    SWITCHES,
    SYSTEM,
    Fields,
    is_empty,
    parsed,
    refusal,
)

# What --columns may name, and the keys of records that a mapping sets aside.
COLUMNS = ("prompt", "completion", "input", "system", "history", "messages", "tools", "text")
SHAPE_KEYS = frozenset([*QUESTIONS, *ANSWERS, *CHATS, *COLUMNS, "segments"])
# The keys that a kind of record, asked for with --format, is made of.
KIND_KEYS = {
    "prompt-completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
}


@dataclasses.dataclass(frozen=True)
class Rules:
    """How records are read."""

    template: object = None  # chat.Renderer; None: chats are refused
    kind: str | None = None  # a name of KIND_KEYS, or any
    columns: tuple[tuple[str, str], ...] = ()  # (what of COLUMNS, the record's own key)
    ignored: frozenset[str] = frozenset()  # keys that the user has said not to need


@dataclasses.dataclass(frozen=True)
class Document:
    """What becomes one document: `plain` text gets the tokenizer's begin and end, `answer`
    documents (prompt and completion) too; a `chat` carries its template's own."""

    kind: str  # plain, answer, chat
    segments: list[Segment]
    messages: tuple[str, ...] = ()  # of a chat: its texts without the template
    whole: bool = False  # a chat that is tokenised in one piece, as the model's own template is
    notes: tuple[str, ...] = ()  # what is counted of its record: see report.warnings


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


def parse_json(raw, rules):
    """(documents, unused) of a JSON record: no document where its text is empty, several where a
    chat template needs one for each answer, None where the record is marked as not to be learnt;
    and [(name, value)] of the keys that nothing used."""
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
    documents, unused = _parse(record, rules)
    for document in documents or ():
        for segment in document.segments:
            _check_unicode(segment.text)
    return documents, unused


def _parse(record, rules):
    aside = []
    if rules.columns:
        record, aside = _mapped(record, rules.columns)
    fields = Fields(record, rules.ignored)
    if not _is_wanted(fields):
        return None, []
    allowed = KIND_KEYS.get(rules.kind)
    # Keys without a value count only where nothing else says what the record is meant to be.
    shape = _shape(fields, fields, allowed) or _shape(fields, fields.all, allowed)
    if shape is None:
        raise _no_shape(record, allowed)
    parse, *keys = shape
    documents, unused = parse(fields, *keys, rules)
    return documents, [*unused, *fields.unused(), *aside]


def _shape(fields, present, allowed):
    """(parser, keys) of the kind of record that those of its keys make that are `present`."""
    if present is fields.all and isinstance(fields.all.get("text"), str) and allowed is None:
        return (_text,)
    chat = _choose(fields, CHATS, present, allowed)
    if chat is not None:
        return _chat, chat
    question = _choose(fields, QUESTIONS, present, allowed)
    answer = _choose(fields, ANSWERS, present, allowed)
    if question is None and "input" in present and allowed is None:
        question = "input"
    if question is not None and answer is not None:
        return _question_answer, question, answer
    if "segments" in present and allowed is None:
        return (_segments,)
    return (_text,) if "text" in present and allowed is None else None


def _mapped(record, columns):
    """The record with the keys that --columns names under their meanings; keys that would make it
    another kind of record are set aside."""
    taken = {source for _, source in columns}
    mapped = {}
    for meaning, source in columns:
        if source not in record:
            keys = ", ".join(sorted(map(str, record))[:8]) or "none"
            raise RecordError(f'"{source}" of --columns is missing; the keys are {keys[:100]}')
        mapped[meaning] = record[source]
    aside = []
    for key, value in record.items():
        if key in taken:
            continue
        if key in mapped or (key in SHAPE_KEYS and key not in ("system", "history", "tools")):
            aside += [] if is_empty(value) else [(key, value)]
        else:
            mapped[key] = value
    return mapped, aside


def _is_wanted(fields):
    """False where the record itself says that it is not to be learnt."""
    wanted = True
    for key in SWITCHES:
        value = fields.peek(key)
        if isinstance(value, bool | int | float) and value in (0, 1):
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
        return RecordError(f'"{missing}" is missing')
    if all(key in record for key in PREFERENCES):
        return RecordError(
            "chosen and rejected are preferences (DPO), which cannot be learnt; to learn what was "
            "chosen, give --columns prompt=prompt,completion=chosen"
        )
    if "input_ids" in record:
        return RecordError("input_ids are tokens of some tokenizer already; give the text itself")
    keys = ", ".join(sorted(map(str, record))[:6]) or "none"
    return RecordError(
        f"keys {keys[:80]}: give text; prompt and completion; instruction and output; messages; or "
        f"conversations; or name them with --columns prompt=...,completion=... (text=, messages=)"
    )


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


def _text(fields, _rules):
    return _plain(fields.take_string("text")), []


def _segments(fields, _rules):
    """[{"text", "label"}]: the text as it is, and which parts of it are targets."""
    segments = []
    for number, part in enumerate(fields.take_list("segments"), 1):
        if (
            not isinstance(part, dict)
            or not isinstance(part.get("text"), str)
            or not isinstance(part.get("label"), bool)
        ):
            raise RecordError(f'segment {number} is no object with "text" and "label"')
        if part["text"]:
            segments.append(Segment(part["text"], part["label"]))
    if not any(segment.target for segment in segments):
        raise RecordError('no segment is a target ("label": true), so there is nothing to learn')
    return [Document("chat", segments, tuple(segment.text for segment in segments))], []


def _chat(fields, key, rules):
    builder = Builder(rules.template, rules.ignored)
    builder.add_entries(fields.take_list(key))
    return _rendered(builder, fields, rules)


def _question_answer(fields, question, answer, rules):
    lists = [key for key in (question, answer) if _holds_messages(fields.peek(key))]
    if not lists and not _is_chat(fields, question, rules.template):
        return [_without_template(fields, question, answer)], []
    builder = Builder(rules.template, rules.ignored)
    if "history" in fields:
        builder.add_history(fields.take_list("history"))
    if question in lists:
        builder.add_entries(fields.take(question), targets=False)
    else:
        builder.add("user", _question(fields, question))
    if answer in lists:
        builder.add_entries(fields.take(answer))
    else:
        thought = builder.thought(fields)
        builder.add("assistant", _answer(fields, answer), learn=True, **thought)
    return _rendered(builder, fields, rules)


def _is_chat(fields, question, template):
    """Whether the template writes a question and its answer. A template that was only found beside
    the model writes what needs one; the rest stays the text that it is."""
    if template is None or not template.chats_only:
        return template is not None
    needs = ("history", "tools", "functions", "documents", *REASONING)
    system = () if question == "instruction" else SYSTEM
    return any(key in fields for key in (*needs, *system))


def _holds_messages(value):
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _question(fields, key):
    text = fields.take_string(key)
    more = _input(fields, key)
    return f"{text}\n\n{more}" if more.strip() else text


def _input(fields, question):
    """What a question is about: Alpaca's input, and the context of instructions."""
    key = "context" if question == "instruction" and "input" not in fields else "input"
    return "" if question == "input" else fields.take_string(key, optional=True)


def _answer(fields, key):
    text = fields.take_string(key)
    if not text.strip():
        raise RecordError("the answer is empty, there is nothing to learn")
    return text


def _without_template(fields, question, answer):
    if question == "instruction":
        key = next((key for key in SYSTEM if key in fields), SYSTEM[0])
        system = fields.take_string(key, optional=True)
        parts = [system] if system.strip() else []
        parts.append(f"### Instruction:\n{fields.take_string(question)}")
        given = _input(fields, question)
        if given.strip():
            parts.append(f"### Input:\n{given}")
        prompt = "\n\n".join([*parts, "### Response:\n"])
    else:
        prompt = _question(fields, question)
    segments = [Segment(prompt, False), Segment(_answer(fields, answer), True)]
    return Document("answer", [segment for segment in segments if segment.text])


def _rendered(builder, fields, rules):
    """The conversation with what the record says around it, as the template writes it."""
    for key in SYSTEM:
        if key in fields:
            builder.add_system(fields.take_string(key))
    tools = []
    for key in ("tools", "functions"):
        found = tools_of(fields.take(key), key)
        tools += found
        if found and not rules.template.reads("tools"):
            raise refusal(key, "this template writes no tools; use the model's own template")
    extras = {"tools": tools} if tools else {}
    if "documents" in fields and rules.template.reads("documents"):
        extras["documents"] = fields.take_list("documents")
    if "chat_template_kwargs" in fields:
        extras |= _variables(fields, rules)
    conversation = builder.conversation(extras)
    rendered = rules.template.render(conversation)
    documents = [
        Document("chat", segments, conversation.texts, rendered.whole, () if i else rendered.notes)
        for i, segments in enumerate(rendered.documents)
    ]
    return documents, builder.unused


def _variables(fields, rules):
    values = parsed(fields.peek("chat_template_kwargs"), "chat_template_kwargs")
    if not isinstance(values, dict):
        raise RecordError('"chat_template_kwargs" must be an object')
    for name in values:
        if not rules.template.reads(name):
            raise refusal("chat_template_kwargs", f"this template does not read {name[:40]!r}")
    fields.take("chat_template_kwargs")
    return values
