"""Prompts as ids: what stands before the point where the model begins to write."""

from .chat import Segment, question
from .errors import BAD_INPUT, USAGE, PrepareError, RecordError
from .own_template import OwnTemplate
from .records import Document


def encode(tokenizer, template, text):
    """The ids [tokens] of a text to continue or, under a chat template, of a question with
    everything up to where its answer begins, both as in training."""
    if not text:
        raise PrepareError(USAGE, "a prompt is empty, give it the text to continue")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PrepareError(USAGE, "a prompt is not UTF-8, convert it (iconv -t UTF-8)") from error
    try:
        return _encoded(tokenizer, template, text)
    except RecordError as error:
        raise PrepareError(BAD_INPUT, f"a prompt: {error}") from error


def _encoded(tokenizer, template, text):
    if template is None:
        [encoded] = tokenizer.encode([Document("plain", [Segment(text, True)])])
        end = len(encoded.ids) - (tokenizer.eos_id is not None and not encoded.ended)
    elif isinstance(template, OwnTemplate):
        [encoded] = tokenizer.encode([Document("chat", [Segment(template.prompt(text), False)], (text,), whole=True)])
        end = len(encoded.ids)
    else:
        [segments] = template.render(question(text)).documents
        [encoded] = tokenizer.encode([Document("chat", segments, (text,))])
        end = int(encoded.mask.argmax())
    return encoded.ids[:end]
