"""Chat models of many families, each to us and to transformers, and conversations for them.

The templates named in TRL are the published files, as the installed trl carries them (those that end in
_training are trl's own, with {% generation %} marks); those in templates/ are written in our own words."""

import dataclasses
import json
from pathlib import Path

import tokenizers
import transformers
import trl
from lorascale_data import chat, own_template, records, template_source, tokenizing

TRL = Path(trl.__file__).parent / "chat_templates"
OURS = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class Family:
    end: str  # what ends an answer, by the family's documentation
    bos: str | None = None
    eos: str | None = None
    values: dict | None = None  # variables of the template
    folder: Path = TRL
    file: str | None = None
    merges: bool = False  # the prompt's last line break and the answer's first are one token


FAMILIES = {
    "qwen2_5": Family("<|im_end|>", eos="<|im_end|>"),
    "qwen3": Family("<|im_end|>", eos="<|im_end|>"),
    "qwen3-no-think": Family(
        "<|im_end|>", eos="<|im_end|>", values={"enable_thinking": False}, file="qwen3"
    ),
    "qwen3_5_think": Family("<|im_end|>", eos="<|im_end|>", merges=True),
    "qwen3_training": Family("<|im_end|>", eos="<|im_end|>"),
    "llama3_1": Family("<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>"),
    "llama3_2": Family(
        "<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>", values={"date_string": "26 Jul 2024"}
    ),
    "llama3_training": Family("<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>"),
    "gemma": Family("<end_of_turn>", "<bos>", "<eos>"),  # Gemma 2's, too
    "gemma3": Family("<end_of_turn>", "<bos>", "<eos>"),
    "phi3": Family("<|end|>", "<s>", "<|endoftext|>"),
    "phi3_training": Family("<|end|>", "<s>", "<|endoftext|>"),
    "deepseek_r1_distill": Family(
        "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    ),
    "cohere": Family("<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "gptoss": Family("<|return|>", "<|startoftext|>", "<|return|>"),
    "mistral_v3": Family("</s>", "<s>", "</s>", folder=OURS),
    "mistral_v7": Family("</s>", "<s>", "</s>", folder=OURS),
    "phi4": Family("<|im_end|>", "<|endoftext|>", "<|im_end|>", folder=OURS),
}
SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|begin_of_text|>", "<|eot_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>", "<bos>", "<eos>", "<start_of_turn>",
    "<end_of_turn>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<BOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>",
    "<|startoftext|>", "<|start|>", "<|message|>", "<|channel|>", "<|return|>", "[INST]", "[/INST]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
]  # fmt: skip


def user(text):
    return {"role": "user", "content": text}


def assistant(text=None, **more):
    return {"role": "assistant", **({} if text is None else {"content": text}), **more}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "Be brief."}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city, 'now' & \"here\"",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TURNS = [user("What is 12345?"), assistant("A number."), user("Wie heißt 日本語?"), assistant("Naïve 🙂\n\nok")]
THOUGHTS = [
    user("Is 21 prime?"),
    assistant("<think>\n21 is 3 times 7.\n</think>\n\nNo."),
    user("Is 23?"),
    assistant("<think>\nNothing divides it.\n</think>\n\nYes."),
]
USE = [
    user("Weather in Oslo?"),
    assistant(tool_calls=[call("weather", city="Oslo")]),
    {"role": "tool", "name": "weather", "content": "4 degrees, \"rain\""},
    assistant("It is 4 degrees in Oslo."),
]
LONG = [
    user(f"Question {i} of the café?") if i % 2 == 0 else assistant(f"Answer {i}: {'ok ' * (i % 5 + 1)}done.")
    for i in range(44)
]
CONVERSATIONS = {
    "one": {"messages": TURNS[:2]},
    "two": {"messages": TURNS},
    "system": {"messages": [SYSTEM, *TURNS]},
    "question last": {"messages": [*TURNS, user("And now?")]},
    "padded": {"messages": [user(" spaces "), assistant(" and\n lines ")]},
    "thoughts": {"messages": THOUGHTS},
    "reasoning": {"messages": [user("Spell cat."), assistant("C-A-T", reasoning_content="c, a, t")]},
    "tools": {"messages": USE, "tools": [WEATHER]},
    "calls without tools": {"messages": USE},
    "two calls": {
        "messages": [USE[0], assistant("", tool_calls=[call("weather", city="Oslo"), call("f", x=1)]), *USE[2:]],
        "tools": [WEATHER],
    },
    "thought before a call": {
        "messages": [USE[0], assistant("", reasoning_content="Look it up.", tool_calls=[call("weather", city="Oslo")]),
                     *USE[2:], user("And Rome?"), assistant("Warm.", reasoning_content="It is south.")],
        "tools": [WEATHER],
    },
    "long": {"messages": LONG},
}  # fmt: skip


@dataclasses.dataclass
class Pair:
    """The same model to us and to transformers."""

    folder: Path
    family: Family
    tokenizer: object
    template: own_template.OwnTemplate
    theirs: object
    source: str

    def documents(self, record, learn="all"):
        renderer = self.template if isinstance(self.template, chat.Renderer) else chat.Renderer(self.template, learn)
        found, unused = records.parse_json(json.dumps(record).encode(), records.Rules(renderer))
        assert {key for key, _ in unused} <= {"message.name"}
        return found, self.tokenizer.encode(found)

    def apply(self, record, **options):
        return self.theirs.apply_chat_template(
            record["messages"], tools=record.get("tools"), chat_template=self.source,
            **{"return_dict": False, **(self.family.values or {}), **options},
        )  # fmt: skip

    def ids(self, record):
        """transformers' ids, with the arguments of calls as texts where the template wants that."""
        try:
            return self.apply(record)
        except TypeError:
            messages = json.loads(json.dumps(record["messages"]))
            for each in (c for message in messages for c in message.get("tool_calls", [])):
                each["function"]["arguments"] = json.dumps(each["function"]["arguments"])
            return self.apply({**record, "messages": messages})


def pair_of(name, folder, library):
    family = FAMILIES[name]
    library.save(str(folder / "tokenizer.json"))
    source = (family.folder / f"{family.file or name}.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    tokens = {"bos_token": family.bos, "eos_token": family.eos}
    tokens = {key: token for key, token in tokens.items() if token is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    tokenizer = tokenizing.load(tokenizing.TokenizerOptions(str(folder)))
    template = own_template.OwnTemplate(template_source.find(folder), tokenizer, family.values)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), **tokens
    )
    return Pair(folder, family, tokenizer, template, theirs, source)


def with_template(pair, source):
    """The same tokenizer with another template in its folder."""
    (pair.folder / "chat_template.jinja").write_text(source)
    template = own_template.OwnTemplate(template_source.find(pair.folder), pair.tokenizer)
    return dataclasses.replace(pair, template=template)


def target_texts(pair, document, encoded):
    """Texts of the runs of target tokens, and where in the text each begins."""
    table = pair.tokenizer.vocabulary_bytes()
    runs, before, was = [], 0, 0
    for index, target in zip(encoded.ids.tolist(), encoded.mask.tolist(), strict=True):
        if target and not was:
            runs.append([before, b""])
        if target:
            runs[-1][1] += table[index]
        before, was = before + len(table[index]), target
    return [(begin, text.decode()) for begin, text in runs]
