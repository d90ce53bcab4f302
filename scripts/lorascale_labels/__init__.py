"""Captions for a folder of pictures by a model of its own, into metadata.csv. See scripts/auto_label.py. What it
shares with the preparation of data is imported from lorascale_data, the opening of pictures from lorascale_images.

pictures       which pictures a folder holds, and their pixels as a model sees them
table          metadata.csv: rows stay byte for byte as they are, new ones behind them
captions       that table and the memory of which captions are this program's own; saved together
texts          captions as one line, the tags that CLIP chooses from
models         what kind of model a folder holds; loading it; blip and clip make captions
labelling      all of it in order: batch by batch, saved after each
"""

import importlib.util
import os
import sys

# As in lorascale_data: one line, not a traceback.
_missing = [name for name in ("PIL", "torch", "transformers") if importlib.util.find_spec(name) is None]
if _missing:
    print(
        f"{os.path.basename(sys.argv[0])}: this Python has no {', '.join(_missing)}; run it as "
        f"$(scripts/setup.sh --print-python) {sys.argv[0]} ...",
        file=sys.stderr,
    )
    sys.exit(69)
