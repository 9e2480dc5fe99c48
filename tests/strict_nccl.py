"""A stand-in for NCCL, beside that for CuPy: ranks are threads, and what would hang is refused."""
import queue
import threading
from collections import defaultdict
from types import SimpleNamespace

import numpy as np

from strict_cupy import Refused, _here, memory

thread = threading.local()
_letters = defaultdict(queue.Queue)                    # (communicator, from, to) -> numbers


class Nccl(SimpleNamespace):
    """What `import cupy.cuda.nccl` gives, between threads. It refuses what would wait for ever on
    cards: messages that are not in one group, or of which the other side knows nothing."""

    NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64 = "float16", "float32", "float64"

    def get_unique_id(self):
        return tuple(np.random.default_rng().integers(-128, 128, 128).tolist())

    def groupStart(self):
        thread.group = []

    def groupEnd(self):
        jobs, thread.group = thread.group, None
        for job in sorted(jobs, key=lambda job: job.__name__, reverse=True):   # send, then receive
            job()

    class NcclCommunicator:
        def __init__(self, ndev, commId, rank):
            self.size, self.name, self.rank = ndev, commId, rank

        def send(self, sendbuf, count, datatype, peer, stream):
            numbers = self._checked(sendbuf, count, datatype, peer, stream)

            def send():
                _letters[self.name, self.rank, peer].put(numbers.copy())
            self._in_group(send)

        def recv(self, recvbuf, count, datatype, peer, stream):
            numbers = self._checked(recvbuf, count, datatype, peer, stream)

            def receive():
                numbers[...] = _letters[self.name, peer, self.rank].get(timeout=20).reshape(
                    numbers.shape)
            self._in_group(receive)

        def _checked(self, place, count, datatype, peer, stream):
            numbers = memory[place]
            peers = set(range(self.size)) - {self.rank}
            if (numbers.size, numbers.dtype, stream) != (count, datatype, _here()) or (
                    peer not in peers):
                raise Refused(f"NCCL: {count} x {datatype} to {peer} on {stream}")
            return numbers

        def _in_group(self, job):
            if getattr(thread, "group", None) is None:
                raise Refused("NCCL: a message outside a group")
            thread.group.append(job)
