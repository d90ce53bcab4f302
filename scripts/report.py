#!/usr/bin/env python3
"""Shows what a run learned: a report in the terminal, and in the run folder report.html (one file, opens anywhere) and
report.png.

  report.py runs/quickstart

Works for every run folder of lorascale, finished or not, and changes nothing else in it.
"""

import argparse
import os
import sys
from pathlib import Path

from lorascale_report import commands, page, picture, terminal
from lorascale_report.run_folder import BAD_INPUT, ReportError, read_run

USAGE, CANNOT_WRITE = 64, 73


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(USAGE, f"report: {message} (see --help)\n")


def make_parser():
    parser = Parser(prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="run.output_dir of a run")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where report.html and report.png go (default: RUN_FOLDER)"
    )
    parser.add_argument("--no-files", action="store_true", help="the terminal report only")
    parser.add_argument(
        "--program",
        default=commands.PROGRAM,
        help="the program's path in the commands to try next (default: %(default)s)",
    )
    return parser


def write_whole(path, data):
    """The file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:  # which names no file where a disk is full
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments=None):
    options = make_parser().parse_args(arguments)
    try:
        run = read_run(options.run)
        following = commands.next_commands(run, options.program)
        files = []
        if not options.no_files:
            folder = options.output or options.run
            folder.mkdir(parents=True, exist_ok=True)
            for what, name, make in (
                ("page", "report.html", lambda: page.render(run, following).encode()),
                ("picture", "report.png", lambda: picture.render(run)),
            ):
                write_whole(folder / name, make())
                files.append((what, folder / name))
        terminal.print_report(run, following, files)
    except ReportError as error:
        print(f"report: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = error.filename or "standard output"
        print(
            f"report: {place}: {error.strerror}; choose another folder with --output, or --no-files", file=sys.stderr
        )
        return CANNOT_WRITE
    return 0


if __name__ == "__main__":
    sys.exit(main())
