"""Captions as text: their encoding, and what in them the tokenizer takes otherwise than people expect."""

import codecs
import re

from lorascale_data.errors import BAD_INPUT, PrepareError, RecordError
from lorascale_data.stream import Stream

UTF8 = "utf-8"
ENCODINGS = (UTF8, "utf-16", *(f"cp125{i}" for i in range(9)), "latin-1", "iso8859-15", "koi8-r", "cp932", "euc-jp",
             "gb18030", "big5", "euc-kr")  # fmt: skip
MAX_BYTES = 1 << 20  # of a caption's file
_BOM = "\ufeff"
_UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# CLIP was trained after these had been replaced (ftfy, html.unescape), and the tokenizers in use do not replace them.
_ODD = re.compile(r"[\u2018\u2019\u201c\u201d]|&(?:[a-zA-Z]{2,8}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")


def is_odd(text):
    return _ODD.search(text) is not None


def read(path, encoding):
    """The text of a caption's file."""
    with open(path, "rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise RecordError(f"has over {MAX_BYTES >> 20} MiB and is no caption, remove it")
    try:
        text = raw.decode(encoding).removeprefix(_BOM)
    except UnicodeDecodeError as error:
        raise RecordError(_not_of(encoding, error.start, raw[error.start], raw)) from error
    return checked(text)


def checked(text):
    """`text`, if it can be stored and tokenised."""
    if "\0" in text:
        raise RecordError(f"the caption has a NUL as its character {text.index(chr(0)) + 1}; save it as UTF-8 text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecordError("the caption has half of a character (a lone surrogate); write it anew") from None
    return text


def _not_of(encoding, offset, value, begin):
    remedy = f"convert it (iconv -f {encoding.upper()} -t UTF-8)"
    if encoding == UTF8:
        found = "utf-16" if begin.startswith(_UTF16_BOMS) else "cp1252"
        remedy = f"save it as UTF-8, or read it with --caption-encoding {found} if it is that"
    return f"byte {offset} ({value:#04x}) is no {encoding.upper()}; {remedy}"


class RecodedStream(Stream):
    """A file of another encoding, as UTF-8."""

    def __init__(self, path, encoding):
        self._encoding, self._decoder, self._at = encoding, codecs.getincrementaldecoder(encoding)(), 0
        super().__init__(path)

    def _read(self, count):
        while True:
            raw = super()._read(count)
            waiting = self._decoder.getstate()[0]
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                whole = waiting + raw
                where = self._at - len(waiting) + error.start
                message = _not_of(self._encoding, where, whole[error.start], whole if self._at == 0 else b"")
                raise PrepareError(BAD_INPUT, f"{self.path}: {message}") from error
            self._at += len(raw)
            if text or not raw:
                return text.encode()
