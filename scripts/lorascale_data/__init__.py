"""Data preparation for lorascale: text files in, token files (HDF5) out. See
scripts/prepare_text.py.

files          the inputs as files: folders, saved data sets
stream         a file's bytes, unpacked while they are read
signatures     what files that are no text are
sources        files to raw records (a line, a row, a piece of plain text) with their place, by means
               of texts, json_text, tables (CSV) and columnar (Parquet, Arrow)
records        a raw record to segments of text, each marked as target or not; conversation builds
               chats, keys says what becomes of each key
chat           chat templates: the presets
own_template   the model's own chat template (template_source: where it is kept)
chat_options   the options that choose one
tokenizing     segments to token ids and loss mask; the tokenizer's special tokens
vocabulary     the table from ids to bytes that lets the trainer print text
digest_set     the documents seen, for dropping duplicates
splitter       which documents are the validation set
workers        work in other processes, results in order
pipeline       all of it in parallel and in order
token_file     the HDF5 layout
report         progress and summary
command_line   what the commands share: parser, outputs all or none, errors as one line
"""

import importlib.util
import os
import sys

# Ahead of every import of what all scripts need: a Python that lacks it gets one line, not a traceback.
_missing = [name for name in ("h5py", "numpy") if importlib.util.find_spec(name) is None]
if _missing:
    print(
        f"{os.path.basename(sys.argv[0])}: this Python has no {', '.join(_missing)}; run it as "
        f"$(scripts/setup.sh --print-python) {sys.argv[0]} ...",
        file=sys.stderr,
    )
    sys.exit(69)
