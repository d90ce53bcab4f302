"""Work in processes of its own, whose results come in order; no more than a few batches are under way."""

import collections
import concurrent.futures
import concurrent.futures.process
import ctypes
import multiprocessing
import signal

from .errors import INTERNAL, PrepareError

PR_SET_PDEATHSIG = 1


def in_order(batches, make_worker, workers):
    """Yields (batch, result) in the order of `batches`, a result of the method `process` of what
    `make_worker()` makes, once in each of the processes. One worker is this process."""
    if workers == 1:
        worker = make_worker()
        for batch in batches:
            yield batch, worker.process(batch)
        return
    under_way = collections.deque()
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), _start_worker, (make_worker,)
    ) as pool:
        try:
            for batch in batches:
                under_way.append((batch, pool.submit(_process, batch)))
                if len(under_way) > 2 * workers:
                    yield _finished(under_way.popleft())
            while under_way:
                yield _finished(under_way.popleft())
        finally:
            for _, future in under_way:
                future.cancel()


def _finished(entry):
    batch, future = entry
    try:
        return batch, future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise PrepareError(
            INTERNAL, "a worker process died, perhaps of memory; try fewer --workers"
        ) from error


_worker = None


def _start_worker(make_worker):
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    for number in (signal.SIGTERM, signal.SIGHUP):  # which the parent may handle: command_line.run
        signal.signal(number, signal.SIG_DFL)
    # Where the parent is killed nobody would: Linux then kills this process, too.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _worker = make_worker()


def _process(batch):
    return _worker.process(batch)
