"""The command line's options of chat templates, the same in every script."""

import dataclasses
import json
from pathlib import Path

from . import chat, own_template, template_source
from .errors import BAD_INPUT, USAGE, PrepareError

ROLES = ("system", "user", "assistant")
NAMES = ("auto", "own", "none", *chat.PRESETS, "custom")


def add_to(parser):
    """Adds them to an argparse parser."""
    group = parser.add_argument_group("chats")
    group.add_argument(
        "--chat-template",
        default="auto",
        metavar="NAME|FILE.jinja",
        help="own: the model's, from the tokenizer's folder; a Jinja file; a preset: "
        f"{', '.join(chat.PRESETS)}, custom; none (default: auto, which is own for chats, where the "
        f"model has one)",
    )
    group.add_argument(
        "--chat-template-kwargs",
        default=None,
        metavar="JSON",
        help="variables for the model's own template, such as '{\"enable_thinking\": false}'",
    )
    for role in ROLES:
        for end in ("prefix", "suffix"):
            group.add_argument(
                f"--{role}-{end}", metavar="TEXT", help="for custom; \\n and \\t are understood"
            )
    group.add_argument("--chat-start", default="", metavar="TEXT", help="for custom: once in front")
    group.add_argument(
        "--default-system",
        metavar="TEXT",
        help="the system text of chats that have none (some templates have their own)",
    )
    return group


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What the options say. `template` is None where there is none; `is_found` where nobody asked
    for it: it was only there. `own` is the model's own beside a preset, to compare with."""

    name: str
    template: object
    is_found: bool = False
    own: object = None


def template_of(options, tokenizer):
    """Chosen, for an open tokenizer."""
    name = options.chat_template
    _check_custom(options)
    source = None if options.tokenizer == "bytes" else template_source.find(options.tokenizer)
    values = _values(options.chat_template_kwargs)

    def own(source):
        return own_template.OwnTemplate(source, tokenizer, values, options.default_system)

    if name == "none":
        return Chosen(name, None, is_found=True)
    if name == "auto":
        for option, given in (
            ("--default-system", options.default_system is not None),
            ("--chat-template-kwargs", values),
        ):
            if given and source is None:
                raise PrepareError(USAGE, f"{option} needs --chat-template")
        return Chosen(name, source and own(source), is_found=True)
    if name == "own":
        if source is None:
            raise PrepareError(
                BAD_INPUT,
                f"{options.tokenizer}: has no chat template (chat_template.jinja); give a preset "
                f"(--chat-template chatml, llama3, ...) or a file (--chat-template FILE.jinja)",
            )
        return Chosen(name, _loaded(own(source)))
    if name not in NAMES:
        if not (name.endswith(".jinja") or Path(name).is_file()):
            raise PrepareError(
                USAGE, f"--chat-template {name}: is none of {', '.join(NAMES)} and no .jinja file"
            )
        return Chosen(name, _loaded(own(template_source.of_file(name, options.tokenizer))))
    if values:
        raise PrepareError(USAGE, "--chat-template-kwargs are for the model's own template")
    if name == "custom":
        texts = {
            end: {role: getattr(options, f"{role}_{end}") for role in ROLES}
            for end in ("prefix", "suffix")
        }
        template = chat.custom_template(
            texts["prefix"], texts["suffix"], options.chat_start, options.default_system
        )
    else:
        template = chat.PRESETS[name]
        if options.default_system is not None:
            template = dataclasses.replace(template, default_system=options.default_system)
    return Chosen(name, template, own=source and own(source))


def _loaded(template):
    template.load()  # says what is wrong with it before hours of work
    return template


def _check_custom(options):
    given = [getattr(options, f"{role}_{end}") for role in ROLES for end in ("prefix", "suffix")]
    if options.chat_template != "custom" and (
        options.chat_start or any(text is not None for text in given)
    ):
        raise PrepareError(USAGE, "role prefixes and suffixes need --chat-template custom")


def _values(text):
    if text is None:
        return {}
    try:
        values = json.loads(text)
    except ValueError as error:
        raise PrepareError(USAGE, f"--chat-template-kwargs is no JSON ({error})") from error
    if not isinstance(values, dict) or own_template.RESERVED & set(values):
        raise PrepareError(USAGE, "--chat-template-kwargs takes an object of the template's own variables")
    return values
