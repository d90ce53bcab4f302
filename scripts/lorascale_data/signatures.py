"""Files that are no text: what they are by their first bytes, and how to get at the text in them."""

PARQUET, ARROW_FILE, ARROW_STREAM = "Parquet", "Arrow", "Arrow stream"
COLUMNAR = (PARQUET, ARROW_FILE, ARROW_STREAM)

_PANDAS = "pandas.read_{0}('IN').to_json('OUT.jsonl', orient='records', lines=True) exports it"
EXPORT = {
    PARQUET: _PANDAS.format("parquet"),
    ARROW_FILE: _PANDAS.format("feather"),
    ARROW_STREAM: "datasets.Dataset.from_file('IN').to_json('OUT.jsonl') exports it",
}
_EXTRACT = "extract its text first (pdftotext, pandoc, an OCR program)"
_MEDIA = "only text can be learnt"
_UNPACK = "unpack it and give the folder"
_UTF16 = "convert it (iconv -f UTF-16 -t UTF-8)"

# (where, bytes, what it is, what to do)
_TABLE = [
    (0, b"PAR1", PARQUET, ""),
    (0, b"PARE", "an encrypted Parquet file", "decrypt it first"),
    (0, b"ARROW1", ARROW_FILE, ""),
    (0, b"FEA1", "a Feather file of version 1", "pyarrow.feather.write_feather writes version 2"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "a token file is not prepared again: give it to data.train"),
    (0, b"%PDF-", "a PDF", _EXTRACT),
    (0, b"%!PS", "PostScript", _EXTRACT),
    (0, b"{\\rtf", "a rich text file (RTF)", _EXTRACT),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "save it as text or CSV UTF-8"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", _MEDIA),
    (0, b"\xff\xd8\xff", "a JPEG image", _MEDIA),
    (0, b"GIF8", "a GIF image", _MEDIA),
    (0, b"II*\0", "a TIFF image", _MEDIA),
    (0, b"MM\0*", "a TIFF image", _MEDIA),
    (0, b"RIFF", "a WebP image or a sound (RIFF)", _MEDIA),
    (0, b"OggS", "a sound (Ogg)", _MEDIA),
    (0, b"fLaC", "a sound (FLAC)", _MEDIA),
    (0, b"ID3", "a sound (MP3)", _MEDIA),
    (4, b"ftyp", "a video or image (MPEG-4)", _MEDIA),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska)", _MEDIA),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (0, b"\x04\x22\x4d\x18", "an LZ4 file", "unpack it with lz4 -d"),
    (0, b"\x1f\x9d", "a compress (.Z) file", "unpack it with uncompress"),
    (0, b"SQLite format 3\0", "an SQLite database", "export it (sqlite3 IN -csv -header 'select ...')"),
    (0, b"Obj\x01", "an Avro file", "export it as JSON Lines"),
    (0, b"ORC", "an ORC file", _PANDAS.format("orc")),
    (0, b"\x93NUMPY", "a NumPy array", "give the text that it was made from"),
    (0, b"GGUF", "model weights (GGUF)", "give the text to learn"),
    (0, b"\x7fELF", "a program", "give the text to learn"),
    (0, b"\xff\xfe\0\0", "text in UTF-32", "convert it (iconv -f UTF-32 -t UTF-8)"),
    (0, b"\0\0\xfe\xff", "text in UTF-32", "convert it (iconv -f UTF-32 -t UTF-8)"),
    (0, b"\xff\xfe", "text in UTF-16", _UTF16),
    (0, b"\xfe\xff", "text in UTF-16", _UTF16),
]  # fmt: skip


def recognise(head):
    """(what, remedy) by the first KiB of a file; a name of COLUMNAR, with how to export it; None
    where it may be text."""
    for where, magic, what, remedy in _TABLE:
        if head[where : where + len(magic)] == magic and not _spells_text(head, magic):
            return what, EXPORT.get(what, remedy)
    if head[:4] == b"PK\x03\x04":
        return _zip(head)
    if head[:4] == b"\xff\xff\xff\xff" and len(head) >= 8:  # a message, its length, ...
        return ARROW_STREAM, EXPORT[ARROW_STREAM]
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return (
            "a Python pickle",
            "reading one runs what it contains; export it where it was made (json.dump)",
        )
    if head[8:10] == b'{"' and 0 < int.from_bytes(head[:8], "little") < 1 << 32:
        return "model weights (safetensors)", "give the text to learn"
    if b"\0" in head:
        return _zero_bytes(head)
    return None


def _spells_text(head, magic):
    """Letters alone do not tell: a text may begin with RIFF, ORC or PAR1."""
    return magic.isalnum() and b"\0" not in head


def _zip(head):
    if b"[Content_Types].xml" in head or b"xl/" in head or b"word/" in head:
        return "an Office document", "save it as text or CSV UTF-8"
    if b"mimetypeapplication/epub" in head:
        return "an e-book (EPUB)", _EXTRACT
    if b"data.pkl" in head:
        return "a PyTorch file", "give the text to learn"
    if b".npy" in head:
        return "NumPy arrays", "give the text that they were made from"
    return "a zip archive", _UNPACK


def _zero_bytes(head):
    odd, even = head[1::2].count(0), head[::2].count(0)
    if max(odd, even) * 4 > len(head) and min(odd, even) * 16 < len(head):
        order = "LE" if odd > even else "BE"
        return "text in UTF-16", f"convert it (iconv -f UTF-16{order} -t UTF-8)"
    return "no UTF-8 text (it holds zero bytes)", "convert it (iconv -t UTF-8) or export it as text"
