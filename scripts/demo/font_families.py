"""Fonts that are one design, and on which side each design is: what is validated on must be new to the model, also
where one and the same drawing goes by several names."""

import hashlib

import numpy
from font_letters import ALIKE, differences


def designs_of(faces):
    """int [faces]: the same number for fonts of one design. Families whose names begin with one word are one, and
    those that have two fonts alike, such as the many copies of Times and Helvetica."""
    parents = list(range(len(faces)))

    def root(i):
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    firsts = {}
    for i, face in enumerate(faces):
        parents[root(i)] = root(firsts.setdefault(face.family.lower().split()[0], i))
    pictures = numpy.stack([face.pictures for face in faces])
    for i, j in zip(*numpy.nonzero(differences(pictures, pictures) < ALIKE), strict=True):
        parents[root(i)] = root(j)
    return numpy.array([root(i) for i in range(len(faces))])


def validation_of(faces, designs, fraction):
    """bool [faces]: whether a font is for validation, by the hash of its design's name, which is that of the first of
    its families."""
    names = {}
    for face, design in zip(faces, designs, strict=True):
        names[design] = min(names.get(design, face.family), face.family)
    return numpy.array([_drawn(names[design]) < fraction for design in designs])


def _drawn(name):
    """A number in [0, 1) of a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def kept_pictures(faces):
    """bool [faces, letters]: of equal pictures of one letter the first, of those of different letters none."""
    seen = {}  # picture -> (letter, place) of the first font that has it
    keep = numpy.zeros((len(faces), len(faces[0].pictures)), bool)
    for i, face in enumerate(faces):
        for letter, picture in enumerate(face.pictures):
            entry = seen.setdefault(picture.tobytes(), (letter, i))
            if entry == (letter, i):
                keep[i, letter] = True
            elif entry[0] != letter:
                keep[entry[1], entry[0]] = False
    return keep
