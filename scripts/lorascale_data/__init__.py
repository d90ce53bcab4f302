"""Data preparation for lorascale: text files in, token files (HDF5) out. See
scripts/prepare_text.py.

sources      files to raw records (a line, an array element, a piece of plain text) with their place
records      a raw record to segments of text, each marked as target or not
chat         chat templates: the presets
own_template the model's own chat template (template_source: where it is kept)
chat_options the options that choose one
tokenizing   segments to token ids and loss mask; the tokenizer's special tokens
vocabulary   the table from ids to bytes that lets the trainer print text
digest_set   the documents seen, for dropping duplicates
pipeline     all of it in parallel and in order
token_file   the HDF5 layout
report       progress and summary
"""
