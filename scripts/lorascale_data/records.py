"""Raw records to segments of text: what kind of record it is, what of it is target.

Records are known by their keys: messages or conversations, a question (prompt, instruction,
question, query) and its answer (completion, output, response, answer), segments, text. What is not
as it should be raises RecordError; whoever calls knows the place.
"""

import dataclasses
import json

from . import shapes
from .chat import Segment
from .conversation import Builder, tools_of
from .errors import RecordError
from .keys import ANSWERS, REASONING, SYSTEM, Fields, not_written, parsed, refusal, repeated


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
        # Stripped, or the end of a line would count as a column.
        record = json.loads(raw.rstrip(), object_pairs_hook=_object)
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


def _object(pairs):
    """A JSON object; of a key that is there twice, one value would be lost."""
    record = dict(pairs)
    if len(record) < len(pairs):
        raise RecordError(f"the key {repeated(key for key, _ in pairs)[:40]!r} is there twice")
    return record


def _parse(record, rules):
    aside = []
    if rules.columns:
        record, aside = shapes.mapped(record, rules.columns)
    fields = Fields(record, rules.ignored)
    if not shapes.is_wanted(fields):
        return None, []
    shape, *keys = shapes.shape_of(fields, rules.kind)
    documents, unused = _PARSERS[shape](fields, *keys, rules)
    return documents, [*unused, *fields.unused(), *aside]


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
    builder = _builder(fields, rules)
    builder.add_entries(fields.take_list(key))
    left = next((name for name in ANSWERS if name in fields), None)
    if left is not None and builder.messages[-1]["role"] != "assistant":
        raise refusal(
            left, f"the {key} end without an answer; --columns prompt={key},completion={left} adds it"
        )
    return _rendered(builder, fields, rules)


def _builder(fields, rules):
    names = dict(pair for pair in rules.columns if pair[0] in shapes.OF_MESSAGES)
    unread = [name for name in ("tools", "functions") if name in fields]
    return Builder(rules.template, rules.ignored, names, unread)


def _question_answer(fields, question, answer, rules):
    lists = [key for key in (question, answer) if shapes.is_list_of_objects(fields.peek(key))]
    if not lists and not _is_chat(fields, question, rules.template):
        return [_without_template(fields, question, answer)], []
    builder = _builder(fields, rules)
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
            raise refusal(key, not_written(rules.template, "tools"))
    extras = {"tools": tools} if tools else {}
    if "documents" in fields and rules.template.reads("documents"):
        extras["documents"] = fields.take_list("documents")
        if not shapes.is_list_of_objects(extras["documents"]):
            raise RecordError('"documents" must be a list of objects, as {"title": ..., "text": ...}')
    if "chat_template_kwargs" in fields:
        extras |= _variables(fields, rules)
    conversation = builder.conversation(extras)
    if conversation is None:
        return None, []
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


_PARSERS = {"text": _text, "chat": _chat, "answer": _question_answer, "segments": _segments}
