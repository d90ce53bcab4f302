"""Captions as tags: what commas part, so that training can shuffle and drop tags without a tokenizer."""

import re
from array import array

import numpy

LONGEST = 75  # tokens that the text encoder takes at once, beside begin and end
BATCH = 4096  # captions that are tokenised at once
_COMMA = re.compile(r",(?:\s+|\Z)")


def tags_of(caption):
    return [tag for tag in (part.strip() for part in _COMMA.split(caption.strip())) if tag]


class Captions:
    """The tokens of `texts` in flat arrays, each tag twice: with the comma behind it, which may be a part of a token
    such as "),", and without, as the last one has it. White space parts tokens, so those of any order of tags are the
    tokens of the text in that order. `foreign` are texts with a token that begins or ends one; `long` those of more
    tokens than LONGEST."""

    def __init__(self, tokenizer, texts):
        self.texts = [", ".join(tags_of(text)) for text in texts]
        self.foreign, self.long = [], []
        self._ends = {tokenizer.begin, tokenizer.end}
        self._tokens, self._tags, self._captions = array("i"), array("q", [0]), array("q", [0])
        for first in range(0, len(texts), BATCH):
            self._add(tokenizer, first, self.texts[first : first + BATCH])

    def _add(self, tokenizer, first, texts):
        tags = [tags_of(text) for text in texts]
        forms = iter(tokenizer.encode([form for found in tags for tag in found for form in (tag + ",", tag)]))
        for row, found in enumerate(tags, first):
            length = 0
            for number, _ in enumerate(found, 1):
                with_comma, alone = next(forms), next(forms)
                length += len(alone if number == len(found) else with_comma)
                for form in (with_comma, alone):
                    self._tokens.extend(form)
                    self._tags.append(len(self._tokens))
                if not self._ends.isdisjoint(alone) and self.foreign[-1:] != [row]:
                    self.foreign.append(row)
            if length > LONGEST:
                self.long.append(row)
            self._captions.append((len(self._tags) - 1) // 2)

    def columns(self, rows):
        """{name: array} of some of the captions, with offsets of their own."""
        tokens, tags, captions = array("i"), array("q", [0]), array("q", [0])
        for row in rows:
            first, last = 2 * self._captions[row], 2 * self._captions[row + 1]
            begin = self._tags[first]
            tags.extend(end - begin + len(tokens) for end in self._tags[first + 1 : last + 1])
            tokens.extend(self._tokens[begin : self._tags[last]])
            captions.append((len(tags) - 1) // 2)
        return {
            "tokens": numpy.array(tokens, numpy.uint32),
            "tags": numpy.array(tags, numpy.int64),
            "caption_tags": numpy.array(captions, numpy.int64),
        }

