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
    """The tokens of `texts` in flat arrays. `whole` are those whose tags do not give the tokens of all of it, and
    which are one tag; `foreign` those with a token that begins or ends a text; `long` those of more than LONGEST."""

    def __init__(self, tokenizer, texts):
        self.texts = [", ".join(tags_of(text)) for text in texts]
        self.separator = tokenizer.encode([","])[0]
        self.whole, self.foreign, self.long = [], [], []
        self._ends = {tokenizer.begin, tokenizer.end}
        self._tokens, self._tags, self._captions = array("i"), array("q", [0]), array("q", [0])
        for first in range(0, len(texts), BATCH):
            self._add(tokenizer, first, self.texts[first : first + BATCH])

    def _add(self, tokenizer, first, texts):
        tags = [tags_of(text) for text in texts]
        encoded = iter(tokenizer.encode([tag for found in tags for tag in found]))
        for row, (found, all_of_it) in enumerate(zip(tags, tokenizer.encode(texts), strict=True), first):
            parts = [next(encoded) for _ in found]
            if parts and _joined(parts, self.separator) != all_of_it:
                self.whole.append(row)
                parts = [all_of_it]
            if not self._ends.isdisjoint(all_of_it):
                self.foreign.append(row)
            if len(all_of_it) > LONGEST:
                self.long.append(row)
            for part in parts:
                self._tokens.extend(part)
                self._tags.append(len(self._tokens))
            self._captions.append(len(self._tags) - 1)

    def columns(self, rows):
        """{name: array} of some of the captions, with offsets of their own."""
        tokens, tags, captions = array("i"), array("q", [0]), array("q", [0])
        for row in rows:
            first, last = self._captions[row], self._captions[row + 1]
            begin = self._tags[first]
            tags.extend(end - begin + len(tokens) for end in self._tags[first + 1 : last + 1])
            tokens.extend(self._tokens[begin : self._tags[last]])
            captions.append(len(tags) - 1)
        return {
            "tokens": numpy.array(tokens, numpy.uint32),
            "tags": numpy.array(tags, numpy.int64),
            "caption_tags": numpy.array(captions, numpy.int64),
            "separator": numpy.array(self.separator, numpy.uint32),
        }


def _joined(parts, separator):
    joined = list(parts[0])
    for part in parts[1:]:
        joined += separator + part
    return joined
