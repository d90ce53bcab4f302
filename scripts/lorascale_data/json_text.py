"""JSON files in records: where each begins and ends; parsing them is the workers' part."""

import codecs
import json
import re

from . import stream as streams

LOOKED_AT = 100  # lines that tell JSON Lines from other text


def lines(stream):
    """Yields (line number, bytes) of JSON Lines. Empty lines are passed over."""
    return ((line, text) for line, text in stream.lines(stream.too_long) if not text.isspace())


def first_line_that_is_no_object(head, is_whole):
    """Of the first lines of a file: the number of the first that is no JSON object, 0 where all
    are."""
    found = head.split(b"\n")
    if not is_whole:
        found.pop()  # cut off somewhere
    numbered = [(number, line) for number, line in enumerate(found, 1) if line.strip()]
    for number, line in numbered[:LOOKED_AT]:
        if not _is_object(line):
            return number
    return 0


def starts_with_object(head):
    """Whether the first line is a JSON object, whole."""
    return head.startswith(b"{") and _is_object(head.split(b"\n", 1)[0])


def starts_array(head):
    return re.match(rb"\[\s*(\{|\])", head) is not None


def holds_array_of_objects(head, is_whole):
    """Whether the first element of an array of objects is one indeed."""
    if not starts_array(head):
        return False
    try:
        text = head.decode("utf-8", "replace" if is_whole else "ignore")
        json.JSONDecoder().raw_decode(text[1:].lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def _is_object(line):
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def elements(stream):
    """Yields (line number, bytes) of the elements of a JSON array, or of the objects of a file of
    objects over several lines."""
    decode = json.JSONDecoder().raw_decode
    text, line, in_array, ended = "", 1, None, False
    decoder = codecs.getincrementaldecoder("utf-8")()
    blocks = stream.blocks()
    while True:
        stripped = text.lstrip(" \t\r\n," if in_array else " \t\r\n")
        line += text.count("\n", 0, len(text) - len(stripped))
        text = stripped
        if in_array is None and text:
            in_array = text[0] == "["
            if in_array:
                text = text[1:]
                continue
        if in_array and text.startswith("]"):
            if text[1:].strip() or any(block.strip() for block in blocks):
                raise stream.fail(line, "text after the end of the JSON array, remove it")
            return
        if text:
            try:
                _, end = decode(text)
                if end < len(text) or ended:  # else a number may go on in the next block
                    yield line, text[:end].encode()
                    line += text.count("\n", 0, end)
                    text = text[end:]
                    continue
            except json.JSONDecodeError as error:
                if ended:
                    where = line + text.count("\n", 0, error.pos)
                    raise stream.fail(where, f"not valid JSON ({error.msg}), mend it") from error
            except RecursionError:
                raise stream.fail(line, "JSON nested too deeply, mend it") from None
        if ended:
            if in_array:
                raise stream.fail(line, "the JSON array does not end, the file seems cut short")
            return
        # Read as much again as is waiting, so that a long element is parsed few times.
        wanted = len(text) + 1
        while wanted > 0 and not ended:
            block = next(blocks, b"")
            ended = not block
            try:
                more = decoder.decode(block, final=ended)
            except UnicodeDecodeError as error:
                raise stream.fail(line, f"not UTF-8 ({error.reason}), convert it") from error
            text, wanted = text + more, wanted - len(more)
        if len(text) > 2 * streams.MAX_RECORD_BYTES:
            raise stream.too_long(line)
