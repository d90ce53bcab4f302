"""Text extraction for the demonstration's corpora, on pages made here; no package is fetched."""

import struct
import subprocess

import corpora
import prose
import pytest

KEPT = "This is a whole sentence of running text that a reader would want to have in the book."
PAGE = """<html><head><title>The title of a page that is not to be read by any of us.</title>
<style>p { color: red }</style>
<script>var x = "It is not a sentence for the reader.";</script></head>
<body>
<div class="navheader"><p>Next: the page that follows this one in the order of all.</p></div>
<h1>A heading that looks like a sentence, but it is one that does not belong to the text.</h1>
<p>This is a whole sentence<br> of <code>running</code> text&nbsp;that a reader would
want to have <span class="indexterm">hidden</span>in the book.</p>
<pre>This is a listing, and it is not to be kept in the text that we make of it.</pre>
<ul><li>short<li><p>It&rsquo;s the second &ldquo;item&rdquo; of the list &mdash;
and it is as long as it must be.</ul>
<table><tr><td>This is a cell of a table and it is not to be kept in the text.</td></tr></table>
<p>x = y { 3 } is the code of a program, and so it is not for the reader of the book.</p>
<p>Dies ist ein deutscher Satz, und deshalb gehört er nicht in das englische Buch hinein.</p>
</body></html>"""


def test_html():
    assert prose.html_paragraphs(PAGE) == [
        KEPT,
        'It\'s the second "item" of the list - and it is as long as it must be.',
    ]


@pytest.mark.parametrize(
    "page", ["", "<p>", "</p></div>", "<p class>x<p", "<![CDATA[x", "a < b & c"]
)
def test_broken_html(page):
    assert prose.html_paragraphs(page) == []


def test_pod():
    pod = f"""=head1 A heading that is one of the things that are not to be kept in the text.

This is a whole B<sentence> of I<running> text that a
L<reader|perlbook/"reader"> would want to have in C<< the >> book.

    This is a listing, and it is not to be kept in the text that we make of it.

{KEPT[:-1]}: S<it is E<lt>>.
"""
    assert prose.pod_paragraphs(pod) == [KEPT]


def gzip_can_read(data):
    return subprocess.run(
        ["gzip", "-dc"], input=b"\x1f\x9d\x90" + data, capture_output=True, check=True
    ).stdout


def lzw_encoded(text):
    """A plain writer of the `compress` format, codes of 9 to 16 bits; gzip checks it below."""
    table = {bytes([i]): i for i in range(256)}
    codes, word = [], b""
    for byte in text:
        longer = word + bytes([byte])
        if longer in table:
            word = longer
        else:
            codes.append((table[word], len(table) + 1))
            if len(table) + 1 < 1 << 16:
                table[longer] = len(table) + 1  # 256 is taken
            word = bytes([byte])
    codes.append((table[word], len(table) + 1))
    return pack(codes)


def pack(codes):
    out, group, bits = bytearray(), [], 9

    def flush(whole):
        value = sum(code << (i * bits) for i, code in enumerate(group))
        out.extend(value.to_bytes(bits if whole else -(-len(group) * bits // 8), "little"))
        group.clear()

    for code, entries in codes:
        group.append(code)
        if len(group) == 8:
            flush(True)
        if entries + 1 > 1 << bits and bits < 16:
            if group:
                flush(True)
            bits += 1
    if group:
        flush(False)
    return bytes(out)


LONG = b"".join(b"%d and the %d of them; " % (i * i % 977, i) for i in range(9000))


@pytest.mark.parametrize("text", [b"a", b"aaaaaaaaaa", LONG[:2000], LONG], ids=len)
def test_lzw_as_gzip_reads_it(text):
    data = lzw_encoded(text)
    assert gzip_can_read(data) == text  # else the writer above is wrong
    assert prose.lzw_decoded(data) == text


def bible(lines, windows=2):
    text = "\n".join(["Holy Bible, Textfile.", *lines, ""]).encode()
    step = -(-len(text) // windows)
    parts = [lzw_encoded(text[i : i + step]) for i in range(0, len(text), step)]
    begin = 0x5C + 4 * len(parts)
    starts = [begin + sum(map(len, parts[:i])) for i in range(len(parts))]
    head = b"EC02Compressed Data File".ljust(0x58, b"\0")
    return head + struct.pack(f">{len(parts) + 1}I", len(parts), *starts) + b"".join(parts)


VERSES = [
    "Ge1:1 In the beginning.",
    "Ge1:2 And the  earth.",
    "Ge2:1 Thus.",
    "1Co13:13 Now  abideth.",
]


def test_bible_chapters():
    expected = ["In the beginning.\nAnd the earth.", "Thus.", "Now abideth."]
    assert list(prose.bible_chapters(bible(VERSES))) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"EC02Compressed Data File",
        bible(VERSES)[:100],
        bible(VERSES)[:0x5A],
        bible(["no verse"]),
        bible(VERSES)[:0x5C] + b"\xff" * 60,
    ],
)
def test_damaged_bible(data):
    with pytest.raises(ValueError):
        list(prose.bible_chapters(data))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that holds two unpacked packages, and an apt-get that can fetch no other."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    folder = tmp_path / "cache"
    pages = folder / "git-doc/usr/share/doc/git-doc"
    pages.mkdir(parents=True)
    for name in ("a.html", "b.html", "skipped.html"):
        body = "".join(
            f"<p>{KEPT[:-1]}, as page {name[0]} has it in line {i}.</p>" for i in range(3)
        )
        (pages / name).write_text(f"{body}<p>{KEPT}</p><p>{KEPT}</p>")
    data = folder / "bible-kjv-text/usr/lib"
    data.mkdir(parents=True)
    (data / "bible.data").write_bytes(bible(VERSES * 20_000, windows=30))
    monkeypatch.setattr(
        corpora,
        "BASE",
        (
            corpora.Source(("git-doc",), "usr/share/doc/git-doc/*.html", ("skipped",)),
            corpora.Source(("no-such-doc",), "no-such-place/*"),
        ),
    )
    return folder


def test_base_documents(cache, capsys, monkeypatch):
    monkeypatch.setattr(corpora, "MOST_ALIKE", 5)
    documents = list(corpora.base_documents(cache, 1))
    line = KEPT[:-1] + ", as page {} has it in line {}."
    assert documents[0] == "\n".join([*(line.format("a", i) for i in range(3)), KEPT, KEPT])
    assert len(documents) == 1  # page b begins like the five paragraphs before
    err = capsys.readouterr().err
    assert "left out: package no-such-doc is not to be had: E: Unable to locate package" in err


def test_style_corpus(cache, tmp_path, capsys):
    out = tmp_path / "style.txt"
    assert corpora.main(["--style", str(out), "--cache", str(cache)]) == 0
    documents = out.read_text().split("\f")
    assert documents[:3] == ["In the beginning.\nAnd the earth.\n", "Thus.\n", "Now abideth.\n"]
    assert not (tmp_path / "style.txt.tmp").exists()
    assert "sha256" in capsys.readouterr().err


def test_too_little_text_is_an_error(cache, tmp_path, capsys):
    out = tmp_path / "base.txt"
    assert corpora.main(["--base", str(out), "--cache", str(cache), "--jobs", "1"]) == 65
    assert "at least 5 MB are needed" in capsys.readouterr().err
    assert list(tmp_path.glob("base*")) == []


def test_missing_style_package(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(corpora, "STYLE", corpora.Source(("gone",), "no-such-place/*"))
    assert corpora.main(["--style", str(tmp_path / "s.txt"), "--cache", str(cache)]) == 65
    err = capsys.readouterr().err
    assert "package gone is not to be had: E: Unable to locate package" in err
    assert err.count("\n") == 1


def test_nothing_asked_for(capsys):
    assert corpora.main([]) == 64
    assert "--base OUT.txt" in capsys.readouterr().err
