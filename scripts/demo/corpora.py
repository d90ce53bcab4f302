#!/usr/bin/env python3
"""Makes the two English corpora of the demonstration from free Debian packages.

  corpora.py --base base.txt --style style.txt [--cache FOLDER] [--jobs N]

base:  modern technical prose (manuals), for pre-training a small byte-level model
style: the King James Bible (1611), one verse a line, for the LoRA fine-tune

Documents are separated by a form feed (prepare_text.py --text-split formfeed); the text is plain
ASCII. The packages (about 35 MB) are fetched by `apt-get download` and unpacked by `dpkg -x` into
the cache folder; nothing is installed, no root is needed. Where apt cannot deliver a package, the
files of an installed one are used; a manual that is nowhere to be had costs one line and its text.
The same package versions give the same bytes; the SHA-256 of each result is printed.

Packages and licences (all in Debian main, that is free by its guidelines):
  libreoffice-help-en-us  MPL-2.0, parts Apache-2.0   postgresql-doc-*        PostgreSQL licence
  perl-doc                GPL-1+ or Artistic          python3.*-doc           PSF licence
  git-doc                 GPL-2                       debian-reference-en     GPL-2+
  developers-reference    GPL-2+                      debian-policy           GPL-2+
  harden-doc              GPL-2+                      aptitude-doc-en         GPL-2+
  debian-faq              copyleft of its own: may be modified and passed on under the same terms
  bible-kjv-text          text in the public domain, data file free to copy, modify and distribute
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import hashlib
import os
import sys
from pathlib import Path

import prose
from deb_packages import PackageError, cache_folder, unpack

MINIMUM_BASE_BYTES = 5_000_000
MOST_ALIKE = 3  # paragraphs that begin with the same 40 characters


class CorpusError(Exception):
    """What is wrong and the remedy, on one line."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One manual: its package (one name per Debian release) and its pages."""

    packages: tuple[str, ...]
    pages: str  # glob below the root of the unpacked package
    skip: tuple[
        str, ...
    ] = ()  # beginnings of file names without prose: indexes, tables, change logs


BASE = (
    Source(("libreoffice-help-en-us",), "usr/share/libreoffice/help/en-US/text/**/*.html"),
    Source(
        ("postgresql-doc-15", "postgresql-doc-16", "postgresql-doc-17", "postgresql-doc-18"),
        "usr/share/doc/postgresql-doc-*/html/*.html",
        ("bookindex", "biblio"),
    ),
    Source(("perl-doc",), "usr/share/perl/*/pod/*.pod", ("perltoc", "perluniprops", "perlhist")),
    Source(
        ("python3.11-doc", "python3.12-doc", "python3.13-doc", "python3.14-doc"),
        "usr/share/doc/python3.*/html/**/*.html",
        ("contents", "genindex", "changelog", "search"),
    ),
    Source(("git-doc",), "usr/share/doc/git-doc/**/*.html"),
    Source(("debian-reference-en",), "usr/share/debian-reference/*.en.html"),
    Source(
        ("developers-reference",),
        "usr/share/developers-reference/*.html",
        ("genindex", "developers-reference.html"),
    ),
    Source(("debian-policy",), "usr/share/doc/debian-policy/policy.html/*.html", ("genindex",)),
    Source(("debian-faq",), "usr/share/doc/debian/FAQ/*.en.html"),
    Source(("harden-doc",), "usr/share/doc/harden-doc/html/en-US/*.html"),
    Source(("aptitude-doc-en",), "usr/share/doc/aptitude/html/en/*.html"),
)
STYLE = Source(("bible-kjv-text",), "usr/lib/bible.data")


def say(message):
    print(f"corpora: {message}", file=sys.stderr)


def pages_of(source, cache, installed_root=Path("/")):
    """The source's pages in a fixed order, of the first package to be had or an installed one."""
    reasons = []
    for package in source.packages:
        try:
            pages = keep(unpack(package, cache).glob(source.pages), source)
        except PackageError as error:
            reasons.append(str(error))
            continue
        if pages:
            return pages
        reasons.append(f"its files are not where they used to be ({source.pages})")
    pages = keep(installed_root.glob(source.pages), source)
    if not pages:
        raise CorpusError(
            f"package {source.packages[0]} is not to be had: {reasons[0]}; "
            f"run `apt-get update` and try again, or install it"
        )
    return pages


def keep(pages, source):
    """The pages of prose among `pages`, each once: manuals link their folders to each other."""
    real = dict.fromkeys(page.resolve() for page in sorted(pages))
    return [page for page in real if not page.name.startswith(source.skip or ("\0",))]


def read_page(path):
    text = path.read_text(encoding="utf-8", errors="replace")
    return prose.pod_paragraphs(text) if path.suffix == ".pod" else prose.html_paragraphs(text)


def base_documents(cache, jobs):
    """Yields one document a page, less paragraphs that begin like several before them."""
    openings = collections.Counter()
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        for source in BASE:
            try:
                pages = pages_of(source, cache)
            except CorpusError as error:
                say(f"left out: {error}")
                continue
            characters = 0
            for paragraphs in pool.map(read_page, pages, chunksize=16):
                fresh = []
                for paragraph in paragraphs:
                    openings[paragraph[:40]] += 1
                    if openings[paragraph[:40]] <= MOST_ALIKE:
                        fresh.append(paragraph)
                document = "\n".join(fresh)
                if len(document) >= 200:
                    characters += len(document)
                    yield document
            say(
                f"{source.packages[0]:24} {len(pages):5} pages  {characters / 1e6:6.2f} MB of prose"
            )


def style_documents(cache):
    """Yields one document a chapter, one verse a line."""
    files = pages_of(STYLE, cache)
    try:
        yield from prose.bible_chapters(files[0].read_bytes())
    except ValueError as error:
        raise CorpusError(f"{files[0]}: {error}; delete the folder and run again") from error


def write_documents(path, documents, minimum_bytes):
    """Writes the documents, form feeds between them; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    digest, count, size = hashlib.sha256(), 0, 0
    with open(temporary, "wb") as out:
        for document in documents:
            piece = (b"\f" if count else b"") + document.encode("ascii") + b"\n"
            out.write(piece)
            digest.update(piece)
            count, size = count + 1, size + len(piece)
    if size < minimum_bytes:
        temporary.unlink()
        raise CorpusError(
            f"only {size / 1e6:.1f} MB of text for {path.name}, at least "
            f"{minimum_bytes / 1e6:.0f} MB are needed: run `apt-get update` and try again"
        )
    temporary.replace(path)
    say(f"{path}: {count} documents, {size / 1e6:.2f} MB, sha256 {digest.hexdigest()[:16]}")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--base", type=Path, metavar="OUT.txt", help="write the base corpus here")
    parser.add_argument("--style", type=Path, metavar="OUT.txt", help="write the style corpus here")
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache_folder("corpora"),
        metavar="FOLDER",
        help="where packages are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes that extract text (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if not options.base and not options.style:
        print("corpora: give --base OUT.txt, --style OUT.txt or both", file=sys.stderr)
        return 64
    cache = options.cache.absolute()
    try:
        if options.style:
            write_documents(options.style, style_documents(cache), 1_000_000)
        if options.base:
            write_documents(
                options.base, base_documents(cache, max(1, options.jobs)), MINIMUM_BASE_BYTES
            )
    except CorpusError as error:
        say(error)
        return 65
    except OSError as error:
        say(f"{error.filename or options.cache}: {error.strerror}; choose another place")
        return 73
    return 0


if __name__ == "__main__":
    sys.exit(main())
