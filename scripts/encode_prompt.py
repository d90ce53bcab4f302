#!/usr/bin/env python3
"""Prints the token ids of a prompt, as `lorascale generate --ids` takes them:

  lorascale generate run.yaml --decode \\
      --ids "$(scripts/encode_prompt.py --tokenizer models/base 'Once upon a time')"
"""

import argparse
import os
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from lorascale_data import chat_options, prompts, tokenizing  # noqa: E402
from lorascale_data.errors import PrepareError  # noqa: E402


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", help="the text to continue, or the question of a chat")
    parser.add_argument("--tokenizer", required=True, metavar="PATH|bytes")
    chat_options.add_to(parser)
    parser.add_argument("--no-bos", action="store_true", help="no begin-of-text token")
    options = parser.parse_args(arguments)
    try:
        tokenizer = tokenizing.load(
            tokenizing.TokenizerOptions(options.tokenizer, add_bos=not options.no_bos)
        )
        template = chat_options.template_of(options, tokenizer).template
        print(*prompts.encode(tokenizer, template, options.text))
    except PrepareError as error:
        print(f"encode_prompt: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
