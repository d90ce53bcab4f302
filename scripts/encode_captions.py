#!/usr/bin/env python3
"""Prints the tokens of captions, as a model for pictures takes them: what lorascale runs for sample.prompts.

  encode_captions.py --model sd15/ "a photo of a cat" "a dog"

First a line of JSON about the tokenizer (vocabulary, begin, end, pads, tokenizer: its SHA-256), then one with the ids of
each caption, without begin, end and padding.
"""

import argparse
import json
import sys
from pathlib import Path

from lorascale_captions import tokenizing
from lorascale_data.errors import PrepareError


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, metavar="FOLDER", help="the model in diffusers' form")
    source.add_argument("--tokenizer", type=Path, metavar="PATH", help="as that of prepare_images.py")
    parser.add_argument("captions", nargs="*")
    options = parser.parse_args(arguments)
    try:
        if options.model:
            tokenizer, second_pad = tokenizing.of_model(options.model)
        else:
            # Second encoders are padded by "!", the vocabulary's first entry.
            tokenizer, second_pad = tokenizing.Tokenizer(options.tokenizer), 0
    except PrepareError as error:
        print(f"encode_captions: {error}", file=sys.stderr)
        return error.code
    pads = [tokenizer.pad] + ([second_pad] if second_pad is not None else [])
    print(json.dumps({"vocabulary": tokenizer.size, "begin": tokenizer.begin, "end": tokenizer.end, "pads": pads,
                      "tokenizer": tokenizer.sha256}))  # fmt: skip
    for ids in tokenizer.encode(options.captions):
        print(json.dumps(ids))
    return 0


if __name__ == "__main__":
    sys.exit(main())
