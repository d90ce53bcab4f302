"""Conversations: lists of messages in the forms that people have them, to the one that chat
templates take (chat.Conversation)."""

import json

from .chat import Conversation
from .errors import RecordError
from .keys import CHANGES_TRAINING, REASONING, SWITCHES, Fields, json_type, not_written, parsed, refusal

# What the roles of data sets are to templates. One that a template knows by itself stays.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
CALL_ROLES = ("function_call", "tool_call")  # ShareGPT: the assistant's call, as JSON
OWN_ROLES = ("developer", "ipython", "observation", "function")
TURNS = (("input", "output"), ("human", "assistant"), ("user", "assistant"), ("question", "answer"))
TEXT_PARTS = ("text", "input_text", "output_text")


class Builder:
    """Collects the messages of one record for one template; `unused` gets [(key, value)]. `names`
    are the keys of "role" and "content" where messages have others, `tools` the record's keys of
    tools: they are named together with calls that are refused."""

    def __init__(self, template, ignored=frozenset(), names=None, tools=()):
        if template is None:
            raise RecordError(
                "a chat needs --chat-template: give the one of your model (chatml, llama3, ...)"
            )
        self._template = template
        self._ignored, self._names, self._tools = ignored, names or {}, tools
        self.messages, self.learn, self.unused = [], [], []

    def add_system(self, text):
        """The record's own system text, in front."""
        if not text or not text.strip():
            return
        if self.messages and self.messages[0]["role"] in ("system", "developer"):
            if self.messages[0]["content"] != text:
                raise RecordError('"system" and the first message say two things, keep one')
            return
        self.messages.insert(0, {"role": "system", "content": text})
        self.learn.insert(0, False)

    def add(self, role, content, learn=False, **others):
        self.messages.append({"role": role, "content": content, **others})
        self.learn.append(learn)

    def add_history(self, history):
        """Earlier turns, [[question, answer], ...] or messages."""
        if history and all(isinstance(turn, dict) for turn in history):
            self.add_entries(history)
            return
        for number, pair in enumerate(history, 1):
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(isinstance(text, str) and text.strip() for text in pair)
            ):
                raise RecordError(
                    f'"history" {number} is no pair of texts, write [question, answer]'
                )
            self.add("user", pair[0])
            self.add("assistant", pair[1], learn=True)

    def add_entries(self, entries, targets=True):
        """Messages as records have them; answers are targets if `targets` and they don't object."""
        if not entries:
            raise RecordError("the conversation must be a list with at least one message")
        for entry in entries:
            number = len(self.messages) + 1
            if isinstance(entry, str) and entry.startswith("{"):  # tables of mixed objects
                entry = parsed(entry, f"message {number}")
            if not isinstance(entry, dict):
                raise RecordError(
                    f"message {number} is a {json_type(entry)}, it must be an object"
                )
            try:
                fields = Fields(self._renamed(entry), self._ignored)
                turn = _turn(fields.all)
                if turn is not None:
                    self._add_turn(fields, *turn, targets)
                else:
                    self._add_entry(fields, targets)
            except RecordError as error:
                raise RecordError(f"message {number}: {error}") from None

    def conversation(self, extras):
        """None where every answer is marked as not to be learnt."""
        if not any(self.learn):
            if any(message["role"] == "assistant" for message in self.messages):
                return None
            raise RecordError(
                "no message of the assistant, so nothing to learn; remove the record"
            )
        return Conversation(self.messages, self.learn, extras)

    def thought(self, fields):
        """{name: text} of an answer's thoughts, under the name that the template reads."""
        for key in REASONING:
            if key not in fields:
                continue
            names = [name for name in (key, *REASONING) if self._template.reads(name)]
            if not names:
                raise refusal(key, not_written(self._template, "thoughts"))
            return {names[0]: fields.take_string(key)}
        return {}

    def _renamed(self, entry):
        if not self._names:
            return entry
        meanings = {key: meaning for meaning, key in self._names.items()}
        for key in meanings:
            if key not in entry:
                raise RecordError(f'"{key}" of --columns is missing')
        return {meanings.get(key, key): value for key, value in entry.items()}

    def _add_turn(self, fields, question, answer, targets):
        """A question and its answer in one entry, and perhaps the system text."""
        self.add_system(fields.take_string("system", optional=True) if not self.messages else "")
        self.add("user", fields.take_string(question))
        text = fields.take_string(answer)
        if not text.strip():
            raise RecordError("the answer is empty, there is nothing to learn")
        self.add("assistant", text, learn=targets)
        self.unused += fields.unused()

    def _add_entry(self, fields, targets):
        sharegpt = "from" in fields.all
        given = fields.take_string("from" if sharegpt else "role")
        key = "value" if "value" in fields or (sharegpt and "content" not in fields) else "content"
        others = self.thought(fields)
        if given in CALL_ROLES:
            role, content = "assistant", None
            calls = _calls(fields.take(key), key)
        else:
            role, content = self._role(given, sharegpt), self._content(fields, key)
            calls = self._take_calls(fields)
        if calls:
            self._need_calls()
            others["tool_calls"] = calls
        if role == "system" and self.messages:
            raise RecordError("a system message must come first")
        if content is None and not calls:
            fields.take_string(key)  # says what is wrong with it
        if role == "assistant" and not calls and not content.strip():
            raise RecordError("the answer is empty, there is nothing to learn")
        learn = self._switches(fields, role == "assistant") and targets
        for name in fields.names():
            if name not in CHANGES_TRAINING and self._template.reads(name):
                others[name] = fields.take(name)
        self.unused += [(f"message.{name}", value) for name, value in fields.unused()]
        self.add(role, content, learn, **others)

    def _role(self, given, sharegpt):
        if given in OWN_ROLES and self._template.reads(given):
            return given
        if given not in ROLES:
            usual = "human and gpt" if sharegpt else "system, user and assistant"
            raise RecordError(f"unknown role {given[:40]!r}, use {usual}")
        return ROLES[given]

    def _content(self, fields, key):
        """A string, or the text parts of a list as some services write it; None where there is
        none."""
        value = fields.peek(key)
        if not isinstance(value, list):
            if key in fields or fields.all.get(key) == "":
                return fields.take_string(key)
            return None
        fields.take(key)
        texts = []
        for part in value:
            if isinstance(part, str):
                texts.append(part)
                continue
            if not isinstance(part, dict) or part.get("type") not in TEXT_PARTS:
                kind = part.get("type") if isinstance(part, dict) else json_type(part)
                raise RecordError(
                    f'"{key}" holds a part of type {str(kind)[:40]!r}, only text can be learnt'
                )
            part = Fields(part)
            part.take("type")
            texts.append(part.take_string("text"))
            self.unused += [(f"message.{key}.{name}", each) for name, each in part.unused()]
        return "".join(texts)

    def _take_calls(self, fields):
        if "function_call" in fields:  # the older form: one call
            return _calls(fields.take("function_call"), "function_call")
        return _calls(fields.take("tool_calls"), "tool_calls")

    def _need_calls(self):
        if not self._template.reads("tool_calls"):
            raise refusal(
                "tool_calls",
                not_written(self._template, "calls of tools"),
                *self._tools,
            )

    @staticmethod
    def _switches(fields, is_answer):
        """Whether the message is learnt, by its weight (0 or 1) and its truth values."""
        learn = is_answer
        for key in SWITCHES:
            if key not in fields:
                continue
            value = fields.take(key)
            if value not in (0, 1) or (key != "weight" and not isinstance(value, bool)):
                values = "0 or 1" if key == "weight" else "true or false"
                raise RecordError(f'"{key}" is {value!r}, it must be {values}')
            if value is True and not is_answer:
                raise RecordError(
                    f'"{key}" is true, but only answers are learnt (--learn everything takes all)'
                )
            learn = learn and bool(value)
        return learn


def _turn(entry):
    """The keys of a question and its answer in one entry; None where it is a message."""
    if "role" in entry or "from" in entry:
        return None
    return next((pair for pair in TURNS if pair[0] in entry and pair[1] in entry), None)


def _calls(value, key):
    """Calls of tools in the form that templates take: arguments as an object."""
    value = parsed(value, key)
    if value is None:
        return []
    calls = value if isinstance(value, list) else [value]
    return [_call(parsed(call, key), key) for call in calls]


def _call(call, key):
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RecordError(f'"{key}" holds no object with the "name" of a function')
    name = "arguments" if "arguments" in function else "parameters"
    arguments = function.get(name)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            what = function["name"][:40]
            raise RecordError(f'"{key}": the arguments of {what} are no JSON, mend them') from None
    function = {part: value for part, value in function.items() if value is not None}
    function.pop("parameters", None)
    function["arguments"] = {} if arguments is None else arguments
    around = {} if "function" not in call else call
    around = {part: value for part, value in around.items() if value is not None}
    return {"type": "function", **around, "function": function}


def tools_of(value, key):
    """Tools in the form that templates take, from the services' forms or a string of JSON."""
    value = parsed(value, key)
    tools = value if isinstance(value, list) else [] if value is None else [value]
    tools = [parsed(tool, key) for tool in tools]
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RecordError(f'"{key}" holds no object with the "name" of a function')
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
