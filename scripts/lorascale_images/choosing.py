"""Which pictures are kept, and on which side they are."""

import numpy

TRAINING, VALIDATION, DUPLICATE, CONTRADICTED = 0, 1, -1, -2


def groups_of(digests):
    """(order, starts): pictures sorted by digest and, where it is the same, as they came; and where in
    `order` each group of equal ones begins."""
    halves = numpy.ascontiguousarray(digests).view("<u8")  # [pictures, 2]
    order = numpy.lexsort((halves[:, 1], halves[:, 0]))  # stable
    ordered = halves[order]
    is_new = numpy.ones(len(order), bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order, numpy.flatnonzero(is_new)


def contradiction(labels, order, starts):
    """Of the pictures that are equal to one of another class: the first two; or None."""
    wrong = _is_contradicted(labels, order, starts)
    if not wrong.any():
        return None
    ends = numpy.append(starts[1:], len(order))
    found = []
    for begin, end in zip(starts[wrong], ends[wrong], strict=True):
        group = order[begin:end]
        other = group[labels[group] != labels[group[0]]][0]
        found.append((int(group[0]), int(other)))
    return min(found)


def _is_contradicted(labels, order, starts):
    """bool [groups]"""
    ordered = labels[order]
    return numpy.minimum.reduceat(ordered, starts) != numpy.maximum.reduceat(ordered, starts)


def sides(scratch, splitter, deduplicate):
    """i8 [pictures]: TRAINING, VALIDATION, DUPLICATE or CONTRADICTED. Of equal pictures of one class the
    first is kept, of equal ones of several classes none: no one knows which label is right."""
    digests = scratch.digests
    side = numpy.full(len(scratch), TRAINING, numpy.int8)
    if deduplicate:
        order, starts = groups_of(digests)
        side[:] = DUPLICATE
        side[order[starts]] = TRAINING
        wrong = _is_contradicted(scratch.labels, order, starts)
        lengths = numpy.diff(numpy.append(starts, len(order)))
        side[order[numpy.repeat(wrong, lengths)]] = CONTRADICTED
    if splitter is not None:
        for i in numpy.flatnonzero(side == TRAINING):
            if splitter.is_validation(digests[i].tobytes()):
                side[i] = VALIDATION
    return side
