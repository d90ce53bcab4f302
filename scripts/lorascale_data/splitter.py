"""Which documents are the validation set."""

import hashlib


class Splitter:
    """Chooses the documents of the validation set by their digest and a seed: whatever the order,
    the duplicates or the other documents, the same document always falls on the same side."""

    def __init__(self, fraction, seed):
        self._limit = round(fraction * 2**64)
        self._key = b"lorascale split " + str(seed).encode()

    def is_validation(self, digest):
        drawn = hashlib.blake2b(digest, digest_size=8, key=self._key).digest()
        return int.from_bytes(drawn, "little") < self._limit
