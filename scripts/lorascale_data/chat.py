"""Chat templates: a conversation to segments of text, marked as target or not.

Targets are each answer and the token that ends it; role headers, questions and system texts are
not. Where a template puts a space before the answer, the space belongs to the target: tokenizers
merge it with the answer's first word, and so does the generation prompt end without it. Tests
compare every preset with the published Jinja template of its family.
"""

import dataclasses

from .errors import USAGE, PrepareError, RecordError


@dataclasses.dataclass(frozen=True)
class Segment:
    text: str
    target: bool


@dataclasses.dataclass(frozen=True)
class Rendered:
    documents: list[list[Segment]]  # one, but where a template renders each answer anew
    notes: tuple[str, ...] = ()  # what is counted: see report.warnings
    whole: bool = False  # tokenised in one piece, as the model's own template is


@dataclasses.dataclass(frozen=True)
class Conversation:
    """What a record says, as the templates of models take it."""

    # [messages] "role", "content" (a string; None only beside tool calls) and of what else the
    # record's message carries the keys that the template reads: reasoning_content, name, ...
    # "tool_calls" are [{"type": "function", "function": {"name", "arguments": object}}].
    messages: list[dict]
    learn: list[bool]  # [messages] the answers that are targets
    # Variables of the template by name: "tools" as [{"type": "function", "function": {...}}],
    # "documents", what the record's chat_template_kwargs name.
    extras: dict = dataclasses.field(default_factory=dict)

    @property
    def texts(self):
        return tuple(filter(None, (message.get("content") for message in self.messages)))


def question(text):
    """A conversation of a question and some answer."""
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "answer"}]
    return Conversation(messages, [False, True])


LEARN = ("all", "last", "everything")  # answers, the last answer, every token


@dataclasses.dataclass(frozen=True)
class Renderer:
    """A template and what of its conversations is to be learnt (one of LEARN)."""

    template: object  # TurnTemplate, InstTemplate or own_template.OwnTemplate
    learn: str = "all"
    apart: bool = False  # each answer as a document of its own, as the model writes it
    chats_only: bool = False  # not for a question and its answer that no record calls a chat
    own: object = None  # the model's own template beside a preset, to compare with
    # [0]: conversations still to compare; behind it the (preset's, own) texts of those that differ.
    compared: list = dataclasses.field(default_factory=lambda: [0])

    @property
    def is_own(self):
        """Whether it is the model's, and not a preset."""
        return hasattr(self.template, "where")

    def reads(self, key):
        """Whether the template does something with this key of messages or of the record: keys
        that it would drop are refused or counted before."""
        return self.template.reads(key)

    def render(self, conversation):
        learn = conversation.learn
        if self.learn == "last" and any(learn):
            last = max(i for i, flag in enumerate(learn) if flag)
            conversation = dataclasses.replace(
                conversation, learn=[i == last for i in range(len(learn))]
            )
        rendered = self._written(self.template, conversation)
        if self.own is not None and self.compared[0] > 0:
            self.compared[0] -= 1
            self._compare(rendered, conversation)
        if self.learn == "everything":
            text = "".join(segment.text for segment in rendered.documents[-1])
            return dataclasses.replace(rendered, documents=[[Segment(text, True)]])
        return rendered

    def _written(self, template, conversation):
        if not self.apart:
            return template.render(conversation)
        first = next((i for i, each in enumerate(conversation.messages) if each["role"] == "user"), 0)
        learnt = [i for i, flag in enumerate(conversation.learn) if flag]
        parts = []
        for answer in [i for i in learnt if i > first] or learnt:  # a greeting answers nothing
            messages = conversation.messages[: answer + 1]
            learn = [i == answer for i in range(answer + 1)]
            part = dataclasses.replace(conversation, messages=messages, learn=learn)
            parts.append(template.render(part))
        return Rendered(
            [document for part in parts for document in part.documents],
            # Each answer is learnt with its own thought.
            tuple(sorted({note for part in parts for note in part.notes} - {"thoughts"})),
            parts[0].whole,
        )

    def _compare(self, rendered, conversation):
        try:
            own = self._written(self.own, conversation)
        except (PrepareError, RecordError):  # what the model's template refuses, or is no template
            return
        if own.documents != rendered.documents:
            texts = [
                "".join(segment.text for segment in each.documents[-1]) for each in (rendered, own)
            ]
            self.compared.append(texts)


@dataclasses.dataclass(frozen=True)
class Message:
    role: str  # system, user or assistant; ChatML also renders others, such as tool
    content: str
    learn: bool = False  # an answer that is a target
    thought: str = ""  # of an answer: what the model reasoned before it


class Preset:
    """What the presets share: of a message they write the role and the content, nothing else."""

    def reads(self, _key):
        """Whether what is written depends on this key of messages or of the record."""
        return False

    def end_id(self, tokenizer):
        """The token that ends an answer, or None."""
        return tokenizer.first_mark(self.answer_end())[1]

    @staticmethod
    def plain_messages(conversation):
        """[messages] Message."""
        return [
            Message(
                message["role"],
                message.get("content") or "",
                learn,
                message.get("reasoning_content") or "",
            )
            for message, learn in zip(conversation.messages, conversation.learn, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class TurnTemplate(Preset):
    """Every message stands alone between a prefix and a suffix of its role."""

    start: str  # once, before the first message
    prefixes: dict[str, str]
    suffixes: dict[str, str]
    after: str = ""  # follows each message's suffix and is never a target
    other_prefix: str | None = (
        None  # for roles without a prefix of their own: "{role}" is filled in
    )
    default_system: str | None = None
    trim: bool = False
    last_answer_prefix: str = ""  # before the last answer's content, part of the generation prompt
    specials: tuple[str, ...] = ()  # texts that the tokenizer should know as one token each

    def render(self, conversation):
        messages = with_system(self.plain_messages(conversation), self.default_system)
        segments = [Segment(self.start, False)]
        answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
        for i, message in enumerate(messages):
            prefix = self._prefix(message.role)
            if self.last_answer_prefix and i == answers[-1]:
                prefix += self.last_answer_prefix
            content = message.content.strip() if self.trim else message.content
            suffix = self.suffixes.get(message.role, self.suffixes["user"])
            segments += [Segment(prefix, False), Segment(content + suffix, message.learn)]
            segments.append(Segment(self.after, False))
        return Rendered([merged(segments)])

    def answer_end(self):
        return self.suffixes.get("assistant", self.suffixes["user"])

    def _prefix(self, role):
        if role in self.prefixes:
            return self.prefixes[role]
        if self.other_prefix is None:
            raise RecordError(
                f"role {role!r} is not in this template, use system, user and assistant, or the "
                f"model's own template"
            )
        return self.other_prefix.replace("{role}", role)


@dataclasses.dataclass(frozen=True)
class ThinkTemplate(TurnTemplate):
    """Qwen3: a turn template whose answers to the last question begin with a thought, be it empty;
    the thoughts of earlier answers are taken out once there is another question."""

    def reads(self, key):
        return key == "reasoning_content"

    def render(self, conversation):
        messages = self.plain_messages(conversation)
        last = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)
        texts, learn, notes = [], [], set()
        for i, message in enumerate(messages):
            content = message.content
            if message.role == "assistant":
                thought, content = _thought_and_answer(message)
                if i > last and self.last_answer_prefix and thought.strip():
                    raise RecordError(
                        f"message {i + 1}: holds a thought, which this template leaves empty; use "
                        f"qwen3 or remove it"
                    )
                if i > last and not self.last_answer_prefix and (i == len(messages) - 1 or thought):
                    content = f"<think>\n{thought}\n</think>\n\n{content.lstrip(chr(10))}"
                else:
                    notes |= {"thoughts"} if thought else set()
                    notes |= {"earlier"} if message.learn and i < last else set()
            texts.append({"role": message.role, "content": content})
            learn.append(message.learn)
        rendered = super().render(Conversation(texts, learn))
        return dataclasses.replace(rendered, notes=tuple(sorted(notes)))


def _thought_and_answer(message):
    """An answer's thought, as it is given or written into the content, and the answer alone."""
    if message.thought:
        return message.thought.strip("\n"), message.content
    before, mark, _ = message.content.partition("</think>")
    if not mark:
        return "", message.content
    thought = before.rstrip("\n").split("<think>")[-1].strip("\n")
    return thought, message.content.split("</think>")[-1].lstrip("\n")


@dataclasses.dataclass(frozen=True)
class InstTemplate(Preset):
    """Llama 2 and Mistral: [INST] question [/INST] answer, strictly in turns."""

    start: str
    question: str  # "{u}" is the question
    answer: str  # "{a}" is the answer; with its end token the target
    system_in_question: str = ""  # "{s}" and "{u}": the first question with the system text
    system: str = ""  # "{s}": a turn of its own before the first question
    turn_start: str = ""  # before each question
    default_system: str | None = None
    trim: bool = False
    specials: tuple[str, ...] = ()

    def render(self, conversation):
        messages = with_system(self.plain_messages(conversation), self.default_system)
        segments = [Segment(self.start, False)]
        system = None
        if messages[0].role == "system":
            system, messages = self._content(messages[0]), messages[1:]
        for i, message in enumerate(messages):
            expected = "assistant" if i % 2 else "user"
            if message.role != expected:
                raise RecordError(
                    f"message {i + 1} is of role {message.role!r} where this template needs "
                    f"{expected!r}: questions and answers must take turns, mend it or use chatml"
                )
            content = self._content(message)
            if message.role == "assistant":
                segments.append(Segment(self.answer.replace("{a}", content), message.learn))
                continue
            if i == 0 and system is not None:
                if self.system:
                    segments.append(Segment(self.system.replace("{s}", system), False))
                else:
                    content = fill(self.system_in_question, system, content)
            question = self.turn_start + self.question.replace("{u}", content)
            segments.append(Segment(question, False))
        return Rendered([merged(segments)])

    def answer_end(self):
        return self.answer.partition("{a}")[2]

    def _content(self, message):
        return message.content.strip() if self.trim else message.content


def with_system(messages, default):
    if default is None or messages[0].role == "system":
        return messages
    return [Message("system", default), *messages]


def fill(pattern, system, question):
    """Fills {s}, then {u}, without looking for {u} in the system text."""
    before, after = pattern.split("{s}")
    return before + system + after.replace("{u}", question)


def merged(segments):
    """The segments with neighbours of one kind joined and empty ones left out."""
    result = []
    for segment in segments:
        if not segment.text:
            continue
        if result and result[-1].target == segment.target:
            segment = Segment(result.pop().text + segment.text, segment.target)
        result.append(segment)
    return result


_CHATML = {
    "start": "",
    "suffixes": {"user": "<|im_end|>"},
    "after": "\n",
    "specials": ("<|im_start|>", "<|im_end|>"),
}
_ROLES = ("system", "user", "assistant")


def _qwen(kind=TurnTemplate, **more):
    prefixes = {role: f"<|im_start|>{role}\n" for role in _ROLES}
    return kind(prefixes=prefixes, **_CHATML, **more)


_SYSTEM_FIRST = "{s}\n\n{u}"
_INST = ("<s>", "</s>")
_INST_TOKENS = ("<s>", "</s>", "[INST]", "[/INST]")

PRESETS = {
    "chatml": TurnTemplate(prefixes={}, other_prefix="<|im_start|>{role}\n", **_CHATML),
    "qwen2": _qwen(default_system="You are a helpful assistant."),
    "qwen2.5": _qwen(
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    ),
    "qwen3": _qwen(ThinkTemplate),
    # Qwen3 asked not to think begins its answer after an empty thought.
    "qwen3-no-think": _qwen(ThinkTemplate, last_answer_prefix="<think>\n\n</think>\n\n"),
    "llama3": TurnTemplate(
        start="<|begin_of_text|>",
        prefixes={
            role: f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in _ROLES
        },
        suffixes={"user": "<|eot_id|>"},
        trim=True,
        specials=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "llama2": InstTemplate(
        start="",
        turn_start="<s>",
        question="[INST] {u} [/INST]",
        answer=" {a} </s>",
        system_in_question="<<SYS>>\n{s}\n<</SYS>>\n\n{u}",
        trim=True,
        specials=_INST,
    ),
    "mistral-v1": InstTemplate(
        start="<s>",
        question=" [INST] {u} [/INST]",
        answer=" {a}</s>",
        system_in_question=_SYSTEM_FIRST,
        specials=_INST,
    ),
    "mistral-v3": InstTemplate(
        start="<s>",
        question="[INST] {u}[/INST]",
        answer=" {a}</s>",
        system_in_question=_SYSTEM_FIRST,
        specials=_INST_TOKENS,
    ),
    "mistral-v3-tekken": InstTemplate(
        start="<s>",
        question="[INST]{u}[/INST]",
        answer="{a}</s>",
        system_in_question=_SYSTEM_FIRST,
        specials=_INST_TOKENS,
    ),
    "mistral-v7": InstTemplate(
        start="<s>",
        question="[INST] {u}[/INST]",
        answer=" {a}</s>",
        system="[SYSTEM_PROMPT] {s}[/SYSTEM_PROMPT]",
        specials=(*_INST_TOKENS, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    ),
}


def unescaped(text):
    r"""The text with \n, \t and \\ replaced: shells pass them on as they are written."""
    pieces = text.split("\\\\")
    return "\\".join(piece.replace("\\n", "\n").replace("\\t", "\t") for piece in pieces)


def custom_template(prefixes, suffixes, start, default_system):
    """A template from the command line's strings; roles system, user and assistant."""
    if not prefixes.get("user") or not prefixes.get("assistant"):
        raise PrepareError(
            USAGE, "--chat-template custom needs --user-prefix and --assistant-prefix"
        )
    if not suffixes.get("assistant"):
        raise PrepareError(
            USAGE,
            "--chat-template custom needs --assistant-suffix: without an end the model never stops",
        )
    return TurnTemplate(
        start=unescaped(start),
        prefixes={role: unescaped(text or "") for role, text in prefixes.items()},
        suffixes={role: unescaped(text or "") for role, text in suffixes.items()},
        default_system=default_system,
    )
