"""Plain English out of markup: HTML pages, Perl's POD and the King James text of bible-kjv-text.

A small model learns whatever is left in, so the rule is strict: only whole sentences in running
text survive; listings, tables, menus, headings and synopses go. Results are printable ASCII.
"""

import html.parser
import itertools
import re
import struct

SKIPPED_TAGS = frozenset(
    "head script style pre table nav header footer form button svg math figure "
    "h1 h2 h3 h4 h5 h6 dt".split()
)
SKIPPED_CLASSES = re.compile(
    r"toc|nav|related|sidebar|footer|header|index|screen|listing|literallayout|highlight|copyright|"
    r"legalnotice|revhistory|versionmodified|howtoget|synopsis|verseblock|tab__|breadcrumb|bug"
)
SKIPPED_INLINE_CLASSES = frozenset(["headerlink", "footnote-reference", "indexterm"])
BLOCK_TAGS = frozenset("p li dd div ul ol dl blockquote section article main body td hr".split())
VOID_TAGS = frozenset("area base br col embed hr img input link meta source track wbr".split())

ASCII = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201a": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u201e": '"',
        "\u2013": "-",
        "\u2014": " - ",
        "\u2010": "-",
        "\u2011": "-",
        "\u2212": "-",
        "\u2026": "...",
        "\u00a0": " ",
        "\u2003": " ",
        "\u2009": " ",
        "\u200a": " ",
        "\u202f": " ",
        "\u00ab": '"',
        "\u00bb": '"',
        "\u200b": "",
        "\u00ad": "",
        "\ufeff": "",
        "\u00d7": "x",
        "\u2192": "->",
        "\u2032": "'",
    }
)
FUNCTION_WORDS = frozenset(
    "the a an of to and in is are be that this it for with as by on or not can will you if from "
    "which at have has was when but all your its may use used one only any than into there their "
    "no so do".split()
)
SENTENCE = re.compile(r"""["'(]?[A-Z].*[a-z0-9)"'][.!?:]["')]?$""", re.ASCII | re.DOTALL)
CODE = re.compile(r"[][{}<>|\\^~`$@#=*]")  # no English sentence needs these
ODD = re.compile(r"[^A-Za-z ,.'\"();:?!-]")


def normalised(text):
    """One line of text with simple quotes and dashes; may still hold other characters."""
    text = re.sub(r"\s+", " ", text.translate(ASCII)).strip()
    return re.sub(r" ([,.;:?!)])(?= |$)", r"\1", text)


def is_prose(paragraph):
    """Whether a normalised paragraph reads as whole English sentences."""
    if not 50 <= len(paragraph) <= 6000 or not paragraph.isascii() or not SENTENCE.match(paragraph):
        return False
    if CODE.search(paragraph):
        return False
    words = paragraph.split()
    if max(map(len, words)) > 40 or len(ODD.findall(paragraph)) > 0.03 * len(paragraph):
        return False
    common = sum(word.strip(",.;:()\"'").lower() in FUNCTION_WORDS for word in words)
    return common >= 0.22 * len(words)


class _PageReader(html.parser.HTMLParser):
    """Collects the text of block elements; what lies inside a skipped element is dropped."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.blocks = []
        self._text = []
        self._open = []  # (tag, hides its content)
        self._hidden = 0

    def handle_starttag(self, tag, attrs):
        if tag in BLOCK_TAGS:
            self._end_block()
        if tag == "br":
            self.handle_data(" ")
        if tag in VOID_TAGS:
            return
        if tag in ("p", "li", "dd", "dt"):
            self._close_implied(tag)
        names = (dict(attrs).get("class") or "").lower()
        hides = tag in SKIPPED_TAGS or not SKIPPED_INLINE_CLASSES.isdisjoint(names.split())
        if not hides and tag in BLOCK_TAGS and tag != "body":
            hides = bool(SKIPPED_CLASSES.search(names))
        self._open.append((tag, hides))
        self._hidden += hides
        if hides and tag not in ("a", "span", "sup"):
            self._end_block()

    def _close_implied(self, tag):
        """HTML lets authors omit </p> and </li>: a new one ends an open one of its kind."""
        if self._open and self._open[-1][0] == tag:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in BLOCK_TAGS:
            self._end_block()
        if not any(name == tag for name, _ in self._open):
            return
        while self._open:
            name, hides = self._open.pop()
            self._hidden -= hides
            if name == tag:
                break

    def handle_data(self, data):
        if not self._hidden:
            self._text.append(data)

    def _end_block(self):
        if self._text:
            self.blocks.append("".join(self._text))
            self._text = []

    def close(self):
        super().close()
        self._end_block()


def html_paragraphs(page):
    """The paragraphs of running text of an HTML page, in order."""
    reader = _PageReader()
    reader.feed(page)
    reader.close()
    return [text for text in map(normalised, reader.blocks) if is_prose(text)]


POD_CODE = re.compile(r"[BCFILSXZE](?:(<<+)\s+(.*?)\s+>>+|<([^<>]*)>)", re.DOTALL)
POD_ESCAPES = {"lt": "<", "gt": ">", "verbar": "|", "sol": "/", "amp": "&"}


def _pod_code(match):
    letter = match.group(0)[0]
    content = match.group(2) if match.group(1) else match.group(3)
    if letter in "XZ":
        return ""
    if letter == "E":
        return POD_ESCAPES.get(content, "")
    if letter == "L":  # text|page/section
        return content.split("|")[0].strip('/"')
    return content


def pod_paragraphs(pod):
    """The paragraphs of running text of a POD file; indented listings and =commands are dropped."""
    paragraphs = []
    for block in re.split(r"\n[ \t]*\n", pod):
        block = block.strip("\n")
        if not block or block[0] in " \t=":
            continue
        previous = None
        while previous != block:  # codes nest, innermost first
            previous, block = block, POD_CODE.sub(_pod_code, block)
        text = normalised(block)
        if is_prose(text):
            paragraphs.append(text)
    return paragraphs


def lzw_decoded(data, max_bits=16):
    """Undoes Unix `compress` (block mode) for a stream without its three header bytes."""
    out, table = [], [bytes([i]) for i in range(256)] + [b""]
    bits, position, previous = 9, 0, b""
    group = (
        0  # codes come in groups of eight, `bits` bytes each; a group is cut short when bits change
    )
    while position + bits <= 8 * len(data):
        start = position >> 3
        code = int.from_bytes(data[start : start + 4], "little") >> (position & 7) & (1 << bits) - 1
        position, group = position + bits, group + 1
        if code == 256:  # start afresh
            position += (8 - group) % 8 * bits
            table, bits, group, previous = table[:257], 9, 0, b""
            continue
        if code < len(table):
            entry = table[code]
        elif code == len(table) and previous:
            entry = previous + previous[:1]
        else:
            raise ValueError("damaged compressed data")
        out.append(entry)
        if previous and len(table) < 1 << max_bits:
            table.append(previous + entry[:1])
        previous = entry
        # The writer adds its entry one code earlier than the reader.
        if len(table) + 1 > 1 << bits and bits < max_bits:
            position += (8 - group % 8) % 8 * bits
            bits, group = bits + 1, 0
    return b"".join(out)


def bible_lines(data):
    """The lines of bible.data: a table of windows, each a `compress` stream of its own."""
    if data[:27] != b"EC02Compressed Data File".ljust(27, b"\0"):
        raise ValueError("not a data file of bible-kjv (EC02)")
    (count,) = struct.unpack_from(">I", data.ljust(0x5C, b"\0"), 0x58)
    if 0x5C + 4 * count > len(data):
        raise ValueError("cut short")
    starts = [*struct.unpack_from(f">{count}I", data, 0x5C), len(data)]
    if starts != sorted(starts):
        raise ValueError("damaged table of windows")
    text = b"".join(lzw_decoded(data[begin:end]) for begin, end in itertools.pairwise(starts))
    return text.decode("ascii").splitlines()


def bible_chapters(data):
    """Yields each chapter: its verses, one a line, without their numbers."""
    current, verses = None, []
    for line in bible_lines(data)[1:]:  # the first line names the edition
        match = re.fullmatch(r"(\d?[A-Za-z]+)(\d+):(\d+) (.*)", line)
        if not match:
            raise ValueError(f"not a verse: {line[:40]!r}")
        chapter = match.group(1, 2)
        if chapter != current and verses:
            yield "\n".join(verses)
            verses = []
        current = chapter
        verses.append(re.sub(r"\s+", " ", match.group(4)).strip())
    if verses:
        yield "\n".join(verses)
