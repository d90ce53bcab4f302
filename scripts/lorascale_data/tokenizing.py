"""Documents to token ids and loss mask, by bytes or by a Hugging Face tokenizer.

BOS stands once at the front of plain documents and of prompts if the tokenizer adds one; EOS ends
them and is a target. Text that brings its own gets no second one. Chats carry what their template
says and nothing else.
"""

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

import numpy

from . import vocabulary
from .errors import BAD_INPUT, USAGE, PrepareError
from .token_file import token_type

# Ends of text in the order of trust, for tokenizers that do not say which one is theirs.
USUAL_EOS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<|eot_id|>")


MARK = re.compile(r"\s*<[^<>\s]+>")  # what ends a turn looks so, be it a token or not

# Characters before a boundary that tell whether the tokenizer parts the text there.
LOOK_BACK = 256


@dataclasses.dataclass(frozen=True)
class TokenizerOptions:
    path: str  # a folder, a tokenizer.json, or "bytes"
    add_bos: bool = True
    add_eos: bool = True
    bos_token: str | None = None  # overrides of what the tokenizer says
    eos_token: str | None = None


@dataclasses.dataclass
class Encoded:
    ids: numpy.ndarray  # [tokens] of an integer type
    mask: numpy.ndarray | None  # [tokens] uint8, 1 = target; None where all are
    joined: bool = False  # the tokenizer merges over a boundary: the parts were tokenised alone
    specials: bool = False  # the text itself spells a special token and was read as that token
    merged: bool = False  # a token holds the end of a prompt and the start of its answer
    begun: bool = False  # the text brings its own BOS
    ended: bool = False  # the text brings its own EOS


def load(options):
    return ByteTokenizer(options) if options.path == "bytes" else HubTokenizer(options)


def frame(tokenizer, document, encoded):
    """Puts BOS and EOS around the ids of a document that is no chat, where it has none of its own."""
    if document.kind == "chat" or (tokenizer.bos_id is None and tokenizer.eos_id is None):
        return encoded
    ids = encoded.ids
    first, last = (ids[0], ids[-1]) if len(ids) else (None, None)
    encoded.begun = tokenizer.bos_id is not None and first == tokenizer.bos_id
    # White space behind an end token leaves it the end.
    text = document.segments[-1].text.rstrip() if tokenizer.eos_text else ""
    encoded.ended = tokenizer.eos_id is not None and (
        last == tokenizer.eos_id or (text != "" and text.endswith(tokenizer.eos_text))
    )
    front = [] if tokenizer.bos_id is None or encoded.begun else [tokenizer.bos_id]
    back = [] if tokenizer.eos_id is None or encoded.ended else [tokenizer.eos_id]
    encoded.ids = numpy.concatenate([front, ids, back], dtype=tokenizer.dtype, casting="unsafe")
    if encoded.mask is not None:
        parts = [[0] * len(front), encoded.mask, [1] * len(back)]
        encoded.mask = numpy.concatenate(parts, dtype=numpy.uint8, casting="unsafe")
    return encoded


class ByteTokenizer:
    """Ids 0-255 are the bytes of UTF-8, 256 ends a document, 257 pads."""

    def __init__(self, options):
        if options.bos_token or options.eos_token:
            raise PrepareError(USAGE, "--bos-token and --eos-token are not for --tokenizer bytes")
        self.sha256 = "bytes"
        self.vocab_size = 258
        self.dtype = token_type(self.vocab_size)
        self.file_eos_id = 256
        self.bos_id = None
        self.eos_id = 256 if options.add_eos else None
        self.eos_text = None  # no text spells it
        self.warnings = []

    def vocabulary_bytes(self):
        return [bytes([i]) for i in range(256)] + [b"<|endoftext|>", b"<|pad|>"]

    def token_count(self, text):
        """Into how many tokens a template's special falls. Bytes know no specials: none is odd."""
        return 1

    def first_mark(self, text):
        """The text up to the end of its first mark, such as "<|im_end|>", and its id: none here."""
        match = MARK.match(text)
        return (match[0] if match else text), None

    def encode(self, documents):
        return [frame(self, document, self._encode(document)) for document in documents]

    def _encode(self, document):
        pieces = [segment.text.encode() for segment in document.segments]
        ids = numpy.frombuffer(b"".join(pieces), numpy.uint8)
        flags = [segment.target for segment in document.segments]
        if all(flags):
            return Encoded(ids, None)
        lengths = [len(piece) for piece in pieces]
        return Encoded(ids, numpy.repeat(numpy.array(flags, numpy.uint8), lengths))


class HubTokenizer:
    """A tokenizer.json. Never truncates, never pads, adds nothing by itself."""

    def __init__(self, options):
        import tokenizers  # here, so that bytes need no such library

        path = Path(options.path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise PrepareError(
                BAD_INPUT,
                f"{file}: no such file; give a folder with tokenizer.json (save_pretrained of a "
                f"fast "
                f"tokenizer writes one), that file itself, or bytes",
            )
        try:
            raw = file.read_bytes()
            self._tokenizer = tokenizers.Tokenizer.from_str(raw.decode("utf-8"))
        except Exception as error:  # the library raises a plain Exception
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise PrepareError(
                BAD_INPUT, f"{file}: is no tokenizer.json ({reason}), fetch it again"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.warnings = []
        self._settings = _settings(file.parent)
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        self.vocab_size = max(ids, default=-1) + 1
        if not self.vocab_size:
            raise PrepareError(BAD_INPUT, f"{file}: has no tokens, choose another tokenizer")
        self.dtype = token_type(self.vocab_size)
        added = self._tokenizer.get_added_tokens_decoder()
        self._added = set(added)
        special = {i: token for i, token in added.items() if token.special}
        texts = sorted((re.escape(token.content) for token in special.values()), key=len)
        self._special_text = re.compile("|".join(reversed(texts))) if texts else None
        # Text is cut at these before anything else, so what follows one does not depend on what
        # precedes.
        anchors = [i for i, t in special.items() if not (t.lstrip or t.rstrip or t.single_word)]
        self._is_anchor = numpy.zeros(self.vocab_size, bool)
        self._is_anchor[anchors] = True
        self._sentinel = min((special[i].content for i in anchors), default=None)
        self._short_prefixes = {}
        bos = self._find_bos(options, special)
        eos = self._find_eos(options)
        self.file_eos_id = -1 if eos is None else eos
        self.bos_id = bos if options.add_bos else None
        self.eos_id = eos if options.add_eos else None
        self.eos_text = None if eos is None else self._tokenizer.id_to_token(eos)

    def vocabulary_bytes(self):
        return vocabulary.bytes_of_tokens(self._tokenizer)

    def token_count(self, text):
        return len(self._ids(text))

    def text_of(self, index):
        return self._tokenizer.id_to_token(index)

    def first_mark(self, text):
        """The text up to the end of the first added token in it, such as "<|im_end|>", and that
        token's id; (text, None) where there is none."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        match = MARK.match(text)
        for index, (_, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if index in self._added and (match is None or end <= match.end()):
                return text[:end], index
        return (match[0] if match else text), None

    def encode(self, documents):
        """[documents] Encoded, in order."""
        texts = ["".join(segment.text for segment in document.segments) for document in documents]
        if all(document.kind == "plain" for document in documents):
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        else:
            encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        results = []
        for document, text, encoding in zip(documents, texts, encodings, strict=True):
            if all(segment.target for segment in document.segments):
                encoded = Encoded(numpy.array(encoding.ids, numpy.int64), None)
            elif document.whole:
                encoded = _masked_whole(document.segments, encoding)
            else:
                encoded = self._masked(document.segments, text, encoding)
            if self._special_text:
                found = map(self._special_text.search, document.messages or (text,))
                encoded.specials = any(found)
            results.append(frame(self, document, encoded))
        return results

    def _masked(self, segments, text, encoding):
        """Ids and mask of segments. Where tokens do not part at a boundary (BPE merges over it,
        say), the texts before and behind it are tokenised by themselves: in use, too, the prompt
        stands alone."""
        parts, pending = [], self._parted(segments, text, encoding)
        while pending:
            group, text, lead, encoding = pending.pop()
            if encoding is None:
                encoding = self._tokenizer.encode(lead + text, add_special_tokens=False)
            ids = numpy.array(encoding.ids, numpy.int64)
            bounds, wrong = self._bounds(group, lead + text, ids, encoding.offsets, len(lead))
            if wrong is None:
                lengths = numpy.diff(bounds)
                flags = numpy.array([segment.target for segment in group], numpy.uint8)
                parts.append((ids[bounds[0] :], numpy.repeat(flags, lengths)))
                continue
            # The first half is popped first.
            for half, its_lead in ((group[wrong:], self._sentinel or ""), (group[:wrong], lead)):
                text = "".join(segment.text for segment in half)
                pending.append((half, text, its_lead, None))
        ids, masks = (numpy.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Encoded(ids, masks, joined=len(parts) > 1)

    def _parted(self, segments, text, encoding):
        """(segments, text, lead, encoding) of the parts between boundaries that a token crosses,
        the last part first. All at once: to cut at one boundary after the other would tokenise the
        rest of the text again for each. Behind a special token a tokenizer does not add the space
        that it puts before a first word: such a token is the `lead` of all but the first part."""
        positions = numpy.cumsum([len(segment.text) for segment in segments[:-1]])
        offsets = numpy.array(encoding.offsets, numpy.int64).reshape(-1, 2)
        after = numpy.searchsorted(offsets[:, 1], positions, side="right")
        crossed = offsets[numpy.minimum(after, len(offsets) - 1), 0] < positions
        crossed &= after < len(offsets)
        if not crossed.any():
            return [(segments, text, "", encoding)]
        cuts = [0, *(numpy.flatnonzero(crossed) + 1).tolist(), len(segments)]
        groups = [segments[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
        texts = ["".join(segment.text for segment in group) for group in groups]
        leads = ["", *[self._sentinel or ""] * (len(groups) - 1)]
        encodings = self._tokenizer.encode_batch(
            [lead + text for lead, text in zip(leads, texts, strict=True)], add_special_tokens=False
        )
        return list(zip(groups, texts, leads, encodings, strict=True))[::-1]

    def _bounds(self, segments, text, ids, offsets, position):
        """[segments + 1] token indices where segments begin and end, and None; or the first segment
        that does not begin where a token does. The text of the first one begins at `position`."""
        anchors = numpy.flatnonzero(self._is_anchor[ids]).tolist()
        bounds, places, nearest, near = [1 if position else 0], [position], -1, 0
        for number, segment in enumerate(segments[:-1], 1):
            position += len(segment.text)
            while nearest + 1 < len(anchors) and offsets[anchors[nearest + 1]][0] <= position:
                nearest += 1
            anchor = (*offsets[anchors[nearest]], anchors[nearest]) if nearest >= 0 else (0, 0, 0)
            # Far behind the last special token an earlier boundary will do, if the ids agree.
            while near + 1 < number and position - places[near + 1] >= LOOK_BACK:
                near += 1
            bound = None
            if places[near] > anchor[1]:
                bound = self._near_boundary(ids, bounds[near], text[places[near] : position])
            if bound is None:
                bound = self._boundary(text, ids, position, *anchor)
            if bound is None:
                return bounds, number
            bounds.append(bound)
            places.append(position)
        return [*bounds, len(ids)], None

    def _near_boundary(self, ids, first, text):
        """The number of ids that end with `text`, which begins at id `first`; None where `text`
        alone does not give them."""
        lead = self._sentinel or ""
        alone = self._prefix_ids(lead + text)[1 if lead else 0 :]
        end = first + len(alone)
        return end if numpy.array_equal(ids[first:end], alone) else None

    def _boundary(self, text, ids, position, anchor_begin, anchor_end, anchor_token):
        """The number of ids that make up text[:position]; None where the tokens do not part there.
        They do where the text before it, tokenised alone, gives the first of the ids. Enough to
        tokenise from the nearest special token (the anchor) on: what follows one does not depend on
        the rest."""
        if anchor_end > 0 and position in (anchor_begin, anchor_end):
            return anchor_token + (position == anchor_end)
        alone = self._prefix_ids(text[anchor_begin:position])
        end = anchor_token + len(alone)
        return end if numpy.array_equal(ids[anchor_token:end], alone) else None

    def _prefix_ids(self, text):
        if len(text) > 64:
            return self._ids(text)
        if text not in self._short_prefixes:  # headers of a template: few, and met in every chat
            if len(self._short_prefixes) >= 4096:
                self._short_prefixes.clear()
            self._short_prefixes[text] = self._ids(text)
        return self._short_prefixes[text]

    def _ids(self, text):
        return numpy.array(self._tokenizer.encode(text, add_special_tokens=False).ids, numpy.int64)

    def _find_bos(self, options, special):
        if options.bos_token is not None:
            return self._id_of(options.bos_token, "--bos-token")
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        full = self._tokenizer.encode("a", add_special_tokens=True).ids
        if len(full) > len(bare) and full[0] in special and full[1 : 1 + len(bare)] == bare:
            return full[0]
        if self._settings.get("add_bos_token") and self._settings.get("bos_token"):
            return self._tokenizer.token_to_id(self._settings["bos_token"])
        return None

    def _find_eos(self, options):
        if options.eos_token is not None:
            return self._id_of(options.eos_token, "--eos-token")
        for text in [self._settings.get("eos_token"), *USUAL_EOS]:
            index = None if text is None else self._tokenizer.token_to_id(text)
            if index is not None:
                return index
        self.warnings.append(
            "the tokenizer names no end of text, so documents get none and the model will not "
            "learn to "
            "stop; name one with --eos-token"
        )
        return None

    def _id_of(self, text, option):
        index = self._tokenizer.token_to_id(text)
        if index is None:
            raise PrepareError(
                USAGE, f"{option} {text}: is no token of this tokenizer, check its spelling"
            )
        return index


def _masked_whole(segments, encoding):
    """Ids of the text as one piece and its mask: a token that holds a target's first character is
    a target, as transformers has it."""
    ids = numpy.array(encoding.ids, numpy.int64)
    offsets = numpy.array(encoding.offsets, numpy.int64).reshape(-1, 2)
    mask, place, merged = numpy.zeros(len(ids), numpy.uint8), 0, False
    for segment in segments:
        end = place + len(segment.text)
        if segment.target:
            first = numpy.searchsorted(offsets[:, 1], place, side="right")
            merged = merged or (first < len(ids) and offsets[first, 0] < place)
            mask[first : numpy.searchsorted(offsets[:, 0], end, side="left")] = 1
        place = end
    return Encoded(ids, mask, merged=bool(merged))


def _settings(folder):
    """bos_token, eos_token and add_bos_token as far as the tokenizer's folder names them."""
    found = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            continue
        try:
            with open(path, encoding="utf-8") as file:
                contents = json.load(file)
        except (OSError, ValueError) as error:
            raise PrepareError(
                BAD_INPUT, f"{path}: cannot be read ({error}), fetch it again"
            ) from error
        for key in ("bos_token", "eos_token", "add_bos_token"):
            value = contents.get(key) if isinstance(contents, dict) else None
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str | bool):
                found[key] = value
    return found
