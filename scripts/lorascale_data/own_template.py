"""The model's own chat template: Jinja, rendered as transformers renders it, so that the ids of a
conversation are those of `apply_chat_template`.

Targets are what {% generation %} marks where a template has such marks. Elsewhere they come from
renderings of the conversation's beginnings: what stands before an answer when the model is asked for
it (the prompt) must be where the answer begins in the whole, and what the answer's turn adds must
stand there. Where that is not so (a template that rewrites earlier turns), each answer becomes a
document of its own, as the model meets it; where that fails, too, the record is refused.
"""

import bisect
import dataclasses
import json
import os
import re

from .chat import Rendered, Segment
from .errors import BAD_INPUT, PrepareError, RecordError
from .keys import REASONING
from .template_source import TOKEN_NAMES

# Conversations are prepared in windows of so many answers, which makes the time linear in the turns.
WINDOW = 8
QUESTION, ANSWER = "Which letter comes first?", "Alpha does."
# Not for records to set: what the renderer itself passes on.
RESERVED = {"messages", "tools", "documents", "add_generation_prompt", *TOKEN_NAMES}
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class OwnTemplate:
    """Renders conversations by a Source. `values` are variables for the template, such as
    enable_thinking; `default_system` the system text of chats that have none. The template is read
    when it is first needed: Jinja and transformers take a second to load."""

    def __init__(self, source, tokenizer, values=None, default_system=None):
        self.where = source.where
        self._source, self._tokenizer = source, tokenizer
        self._values = dict(values or {})
        self._default_system = default_system
        self._loaded = None

    def load(self):
        """PrepareError where it is no template, or cannot write a question and its answer."""
        if self._loaded is None:
            self._loaded = {
                name: _Variant(self._source, name, self._tokenizer, self._values)
                for name in ("default", "tool_use")
                if name in self._source.named
            }
        return self._loaded

    def end_id(self, _tokenizer):
        """The token that ends an answer, or None."""
        return self.load()["default"].end_id

    def reads(self, key):
        """Whether what is written depends on this key of messages or of the record."""
        return any(key in variant.names for variant in self.load().values())

    def notes(self):
        """What the user should know about the template itself."""
        default = self.load()["default"]
        notes = []
        if default.lost:
            notes.append(
                f"at inference the template begins answers with {default.lost!r}, which it leaves "
                f"out of conversations: the model learns to answer without it"
            )
        if default.end_id is None:
            notes.append(
                "the template ends answers with no token of this tokenizer, so servers will not "
                "know where to stop; use the template and the tokenizer of one model"
            )
        if default.dated:
            notes.append(
                "the template writes today's date into the conversations; fix it with "
                '--chat-template-kwargs \'{"date_string": "26 Jul 2024"}\' where it reads that'
            )
        return notes

    def prompt(self, text):
        """What stands before the answer to a question."""
        messages = self._with_system([{"role": "user", "content": text}])
        return self.load()["default"].bound({}, self._values)(messages, True)

    def render(self, conversation):
        """chat.Rendered; RecordError where the template cannot write what the record carries."""
        tools, variants = conversation.extras.get("tools"), self.load()
        variant = variants["tool_use" if tools and "tool_use" in variants else "default"]
        render = variant.bound(conversation.extras, self._values)
        messages, notes = _prepared(conversation.messages, variant.end)
        learn = conversation.learn
        system = self._with_system(messages)
        if len(system) > len(messages):
            messages, learn = system, [False, *learn]
        messages, text = _first_that_renders(messages, render)
        lost = _what_is_lost(messages, tools, text)
        learn, unasked = variant.asked_for(render, messages, learn, text)
        notes += unasked
        spans, otherwise = variant.spans(render, messages, learn, text)
        if spans is not None:
            return Rendered([_segments(text, spans)], (*notes, *lost, *otherwise), whole=True)
        documents = [
            variant.answer(render, messages, i) for i, flag in enumerate(learn) if flag
        ]
        return Rendered(documents, (*notes, "by_turn"), whole=True)

    def _with_system(self, messages):
        if self._default_system is None or messages[0]["role"] in ("system", "developer"):
            return messages
        return [{"role": "system", "content": self._default_system}, *messages]


@dataclasses.dataclass(frozen=True)
class _Window:
    """A part of a conversation whose renderings tell about the whole: from message `first` on.
    Character c of its renderings, where c >= `known`, is character c + `shift` of the whole."""

    first: int = 0
    known: int = 0
    shift: int = 0

    def messages(self, messages, end):
        head = messages[:1] if self.first and messages[0]["role"] in ("system", "developer") else []
        return [*head, *messages[self.first : end]]


class _Variant:
    """One template: compiled, and what a first conversation shows about it."""

    def __init__(self, source, name, tokenizer, values):
        self._text = source.named[name]
        self._tokens = source.tokens
        # Here, so that presets need not wait for it: a second.
        try:
            import jinja2
            from jinja2 import meta, nodes
            from transformers.utils import chat_template_utils
        except ImportError as error:
            raise PrepareError(
                BAD_INPUT,
                f"{source.where}: to write chats by the model's own template this Python lacks "
                f"{error.name}: install transformers and jinja2 (scripts/setup.sh), or give a preset "
                f"(--chat-template chatml, ...)",
            ) from error

        self._errors = (jinja2.exceptions.TemplateError, ArithmeticError, LookupError, TypeError,
                        ValueError, AttributeError, RecursionError)  # fmt: skip
        self._utils = chat_template_utils
        try:
            self._template = chat_template_utils._compile_jinja_template(self._text)
        except jinja2.exceptions.TemplateSyntaxError as error:
            raise PrepareError(
                BAD_INPUT, f"{source.where}: line {error.lineno}: {error.message}, mend the template"
            ) from error
        environment = self._template.environment
        parsed = environment.parse(self._text)
        variables = meta.find_undeclared_variables(parsed)
        self.variables = variables - set(environment.globals)
        self.names = {*self.variables, *(node.attr for node in parsed.find_all(nodes.Getattr))}
        self.names |= {node.value for node in parsed.find_all(nodes.Const) if isinstance(node.value, str)}
        self.marked = bool(GENERATION.search(self._text))
        self.dated = "strftime_now" in variables and "date_string" not in values
        self.lost, self.end, self.end_id = "", "", None
        try:
            self._look(tokenizer, values)
        except RecordError as error:
            raise PrepareError(
                BAD_INPUT, f"{source.where}: {error} (tried with a question and its answer)"
            ) from error

    def _look(self, tokenizer, values):
        """Finds what ends an answer, and what of the prompt conversations do not show."""
        render = self.bound({}, values)
        asked = [{"role": "user", "content": QUESTION}]
        prompt = render(asked, True)
        told = render([*asked, {"role": "assistant", "content": ANSWER}], False)
        place = told.rfind(ANSWER)
        if place < 0 or QUESTION not in told:
            raise RecordError("the template does not write out what the messages say")
        if not told.startswith(prompt):
            common = os.path.commonprefix([prompt, told[:place]])
            while common and common[-1] not in ">\n ]":  # not within a mark
                common = common[:-1]
            if QUESTION not in common:
                raise RecordError("the template writes questions anew once they are answered")
            self.lost = prompt[len(common) :]
        suffix = told[place + len(ANSWER) :]
        self.end, self.end_id = tokenizer.first_mark(suffix)

    def bound(self, extras, values):
        """render(messages, add_generation_prompt) with everything that does not change."""
        known = {
            key: value
            for key, value in extras.items()
            if key in self.variables and key not in RESERVED
        }
        given = {**self._tokens, **values, **known}
        given |= {"tools": extras.get("tools"), "documents": extras.get("documents")}

        def render(messages, add_generation_prompt):
            try:
                return self._template.render(
                    messages=messages, add_generation_prompt=add_generation_prompt, **given
                )
            except self._errors as error:
                raise _refused(error) from error

        render.given = given
        return render

    def asked_for(self, render, messages, learn, text):
        """Which answers are learnt, and notes: one that the conversation begins with is no target
        where the template cannot ask for it as it stands in `text`."""
        first = next((i for i, message in enumerate(messages) if message["role"] == "user"), len(learn))
        greetings = [i for i in range(first) if learn[i]]
        if self.marked or not greetings:
            return learn, []
        try:
            if text.startswith(self._prompt(render, messages[: greetings[0]])):
                return learn, []
        except RecordError:
            pass
        learn = [flag and i >= first for i, flag in enumerate(learn)]
        if not any(learn):
            raise RecordError("no answer follows a question, so nothing to learn; remove the record")
        return learn, ["unasked"]

    def spans(self, render, messages, learn, text):
        """[(begin, end)] of the learnt answers in the rendered `text`, or None; and notes."""
        return (self._marked if self.marked else self._found)(render, messages, learn, text)

    def _marked(self, render, messages, learn, text):
        """By the template's own {% generation %} marks."""
        given = dict(render.given)
        try:
            [rendered], [spans] = self._utils.render_jinja_template(
                [messages], chat_template=self._text, return_assistant_tokens_mask=True, **given
            )
        except self._errors as error:
            raise _refused(error) from error
        if rendered != text:
            raise RecordError("the model's template renders it differently from time to time")
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if all(learn[i] for i in answers):
            return spans, []
        # An answer may have several marks (its thought, its text, an end of its own): they lie
        # behind what the conversation before it and the whole have in common.
        begins = [len(os.path.commonprefix([text, render(messages[:i], False)])) if i else 0
                  for i in answers]  # fmt: skip
        owners = [bisect.bisect_right(begins, begin) - 1 for begin, _ in spans]
        if sorted(set(begins)) != begins or set(owners) != set(range(len(answers))):
            raise RecordError(
                f"the model's template marks {len(spans)} parts of {len(answers)} answers, and which "
                f"are whose cannot be told, so answers cannot be left out"
            )
        return [span for span, i in zip(spans, owners, strict=True) if learn[answers[i]]], []

    def _found(self, render, messages, learn, text):
        """By renderings of the conversation's beginnings."""
        learnt = [i for i, flag in enumerate(learn) if flag]
        window, spans, notes = _Window(), [], []
        for number, i in enumerate(learnt):
            if number and number % WINDOW == 0:
                window = self._next_window(render, messages, learnt[number - 1], spans[-1][0])
            found = self._span(render, messages, window, i, text)
            if found is None or (spans and found[0] < spans[-1][1]):
                return None, []
            *span, is_as_written = found
            notes = notes if is_as_written else ["earlier"]
            # Windows cannot show that much earlier turns change: some prompts are rendered in full.
            whole = number & (number - 1) == 0 or i == learnt[-1]
            if window.first and whole and text[: span[0]] != self._prompt(render, messages[:i]):
                return None, []
            spans.append(span)
        return spans, notes

    def _next_window(self, render, messages, answer, begin):
        """The window from the question before `answer` on, which begins at character `begin`."""
        first = max((i for i in range(answer) if messages[i]["role"] == "user"), default=0)
        if first < 2:
            return _Window()
        known = len(self._prompt(render, _Window(first).messages(messages, answer)))
        return _Window(first, known, begin - known)

    def _prompt(self, render, messages):
        prompt = render(messages, True)
        return prompt.removesuffix(self.lost) if self.lost else prompt

    def _span(self, render, messages, window, i, text):
        """Where answer i stands in `text`: behind its prompt, up to the token that ends it; and
        whether it stands there as the model writes it."""
        prompt = self._prompt(render, window.messages(messages, i))
        begin = len(prompt) + window.shift
        if text[window.known + window.shift : begin] != prompt[window.known :]:
            return None
        told = window.messages(messages, i + 1)
        # As the last message, which the model writes, and as one that a question follows.
        for following in ([], [{"role": "user", "content": QUESTION}]):
            try:
                turn = render([*told, *following], False)
            except RecordError:
                if following:
                    return None
                raise
            if following:
                turn = turn[: max(0, turn.rfind(QUESTION))]
            end = turn.rfind(self.end)
            if end < len(prompt) or not turn.startswith(prompt):
                continue
            answer = turn[len(prompt) : end + len(self.end)] if self.end else turn[len(prompt) :]
            if answer and text.startswith(answer, begin):
                return begin, begin + len(answer), not following
        return None

    def answer(self, render, messages, i):
        """The segments of a document for answer i alone, as the model meets it."""
        prompt, text = self._prompt(render, messages[:i]), render(messages[: i + 1], False)
        end = text.rfind(self.end) + len(self.end) if self.end else len(text)
        if not text.startswith(prompt) or end <= len(prompt):
            raise RecordError(
                f"message {i + 1}: the model's template writes the conversation before this answer "
                f"anew once it is there, so it cannot be learnt as the model would see it; use a "
                f"preset (--chat-template chatml, ...) or a template with generation marks"
            )
        return _segments(text, [(len(prompt), end)])


def _refused(error):
    reason = " ".join(str(error).split())[:200]
    return RecordError(f"the model's template refuses it: {reason}")


def _segments(text, spans):
    segments, place = [], 0
    for begin, end in spans:
        segments += [Segment(text[place:begin], False), Segment(text[begin:end], True)]
        place = end
    segments.append(Segment(text[place:], False))
    return [segment for segment in segments if segment.text]


def _prepared(messages, end):
    """The messages as transformers hands them to templates, and notes: keys without a value are
    left out, thoughts known by all their names, an answer's own end token is taken off."""
    prepared, notes = [], []
    for message in messages:
        message = {key: value for key, value in message.items() if value is not None}
        thought = next((message[key] for key in REASONING if key in message), None)
        if thought is not None:
            message = {"thinking": thought, **message, "reasoning_content": thought}
        content = message.get("content")
        if end and message["role"] == "assistant" and content and content.rstrip().endswith(end):
            message["content"] = content.rstrip().removesuffix(end)
            notes.append("ended")
        prepared.append(message)
    return prepared, notes[:1]


def _first_that_renders(messages, render):
    """The messages and their rendering. Some templates want the arguments of calls as a string."""
    try:
        return messages, render(messages, False)
    except RecordError:
        if not any(message.get("tool_calls") for message in messages):
            raise
        try:
            texts = [_with_text_arguments(message) for message in messages]
            return texts, render(texts, False)
        except RecordError:
            pass
        raise


def _with_text_arguments(message):
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message.get("tool_calls") or []
    ]
    return {**message, "tool_calls": calls} if calls else message


def _what_is_lost(messages, tools, text):
    """Notes; RecordError where the template drops what a message says. Thoughts may go: models are
    made so."""
    notes, place = set(), 0
    for number, message in enumerate(messages, 1):
        content = message.get("content")
        content = content.strip() if isinstance(content, str) else ""
        if "</think>" in content and content not in text:
            notes.add("thoughts")
            content = content.split("</think>")[-1].strip()
        if message.get("reasoning_content") and message["reasoning_content"].strip() not in text:
            notes.add("thoughts")
        if content and message["role"] in ("system", "user", "assistant"):
            found = text.find(content, place)
            place = found if found >= 0 else place
            if found < 0 and content not in text:
                beside = " beside its tool_calls" if message.get("tool_calls") else ""
                raise RecordError(
                    f"message {number}: the model's template leaves its content out{beside}; "
                    f"remove it or move it to another message"
                )
        for call in message.get("tool_calls") or []:
            name = call["function"]["name"]
            if name not in text:
                raise RecordError(
                    f"message {number}: tool_calls: the model's template leaves {name[:40]!r} out"
                )
    for tool in tools or []:
        name = tool["function"]["name"]
        if name not in text:
            raise RecordError(f"tools: the model's template leaves {name[:40]!r} out")
    return sorted(notes)
