"""Several ranks in one process, each a thread: what they do together is tested without MPI."""
import threading

from tinynet.ranks import Ranks


class Thread(Ranks):
    """Rank `rank` of `size`. All of them share `board`, on which each writes what it gives."""

    def __init__(self, rank, size, board, barrier):
        super().__init__()
        self.rank, self.size, self.host = rank, size, "here"
        self.board, self.barrier = board, barrier

    def everywhere(self, value):
        self.board[self.rank] = value
        self.barrier.wait()
        found = list(self.board)
        self.barrier.wait()
        return found

    def exchange(self, parts, shapes):
        found = [given[self.rank] for given in self.everywhere(parts)]
        assert [one.shape for one in found] == [tuple(shape) for shape in shapes]
        assert all(part.flags.c_contiguous for part in parts)
        self.sent += sum(part.nbytes for i, part in enumerate(parts) if i != self.rank)
        return [one if i == self.rank else one.copy() for i, one in enumerate(found)]

    def at_first(self, value):
        found = self.everywhere(value)
        return found if self.first else None

    def share(self, make):
        return self.everywhere(make() if self.first else None)[0]


def together(size, job, kind=Thread, timeout=60):
    """[job(ranks) of every rank]. An error of one breaks off all."""
    board, barrier = [None] * size, threading.Barrier(size, timeout=timeout)
    results, errors = [None] * size, []

    def run(rank):
        try:
            results[rank] = job(kind(rank, size, board, barrier))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    if errors:
        raise errors[0]
    return results
