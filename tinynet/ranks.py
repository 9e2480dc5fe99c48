"""How do several processes train one net?

As one process would, to the bit. Each is a rank: it has some of the eight lanes (cores.py) of
every batch, and as many lanes of the neurons of the dense layers ("one weird trick",
arXiv:1404.5997). Convolutions are split by pictures, because they compute much and weigh little;
dense layers by neurons, because they weigh much. split.py has the places where the two meet.

Ranks hand on numbers and never let anybody else add them: a sum is made here, as a tree. How
numbers travel stands in mpi.py.
"""
import contextlib
import os
import time
from itertools import accumulate, pairwise

import numpy as np

from . import cores, progress
from .device import Device, get_array_module, to_host

OF_LAUNCHERS = "PMI", "OMPI_", "PRTE_", "SLURM_", "HYDI_", "MPIR_"      # their variables
# How launchers tell a process how many were started, and which of them it is.
LAUNCHERS = {"Open MPI's mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
             "mpiexec": ("PMI_SIZE", "PMI_RANK"),
             "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")}


def told():
    """What a launcher has told this process: how many there are, which it is, and whose word
    that is. (1, 0, "") without one."""
    for name, variables in LAUNCHERS.items():
        size, rank = (os.environ.get(variable, "") for variable in variables)
        if size.isdecimal() and rank.isdecimal() and int(size) > 1:
            return int(size), int(rank), name
    return 1, 0, ""


class Ranks:
    """What ranks do together. This class is a process that is alone.

    rank, size: number `rank` of `size`. lanes: a range, those that are its own. rows: how many
    rows of the current batch each rank has. talked: seconds that this process spent on messages
    and on waiting for the others, but not on those by NCCL, for which only cards wait; sent:
    bytes.

    A subclass says how: `device`, `compare`, `exchange`, `everywhere`, `at_first`, `share`,
    `abort`.
    """

    rank, size, host, local = 0, 1, "", 0
    talked, sent = 0.0, 0
    asked = agreed = False             # to stop: this process was; everybody knows of it
    ended_together = False             # all do end, so nobody has to be stopped

    def __init__(self):
        self.rows = None

    def __deepcopy__(self, memo):
        return self

    @property
    def first(self):
        """Whether this is the one that speaks, and writes files."""
        return self.rank == 0

    @property
    def lanes(self):
        return self.lanes_of(self.rank)

    def lanes_of(self, rank):
        each = cores.LANES // self.size
        return range(rank * each, (rank + 1) * each)

    def lanes_of_tower(self, tower, towers):
        """The lanes of the neurons of one of the towers, as Dense has them: into how many they
        are cut, and which are this rank's."""
        lanes = cores.LANES // towers
        first, last = (min(max(lane - tower * lanes, 0), lanes)
                       for lane in (self.lanes.start, self.lanes.stop))
        return dict(lanes=lanes, mine=range(first, last) if self.size > 1 else None)

    def shares(self, count):
        """How many of so many things each rank has, if they are cut into lanes: a list."""
        edges = cores.edges(count)
        return [edges[lanes.stop] - edges[lanes.start]
                for lanes in map(self.lanes_of, range(self.size))]

    def own(self, count):
        """Which of so many things are this rank's: a slice."""
        edges = cores.edges(count)
        return slice(edges[self.lanes.start], edges[self.lanes.stop])

    @contextlib.contextmanager
    def batch(self, lanes):
        """Inside, a batch is worked on whose lanes, those of all ranks, have so many rows; None:
        nobody knows."""
        if lanes is None:
            yield
            return
        before = self.rows
        self.rows = [sum(lanes[i] for i in self.lanes_of(rank)) for rank in range(self.size)]
        try:
            with cores.lanes([lanes[i] for i in self.lanes]):
                yield
        finally:
            self.rows = before

    def agree(self, value):
        """everywhere(value), once a step; and whoever was asked to stop tells the others."""
        values, asked = zip(*self.everywhere((value, self.asked)), strict=True)
        self.agreed = any(asked)
        return values

    # on arrays, wherever they are

    def gather(self, x, counts, axis):
        """Everybody's x, one behind the other along an axis; counts: how long each is."""
        xp = get_array_module(x)
        x = xp.ascontiguousarray(x)
        shapes = [x.shape[:axis] + (count,) + x.shape[axis + 1:] for count in counts]
        return xp.concatenate(self.exchange([x] * self.size, shapes), axis=axis)

    def sum_in_order(self, x, counts, axis):
        """The sum of everybody's x, as a tree: of it, this rank's part along an axis."""
        xp = get_array_module(x)
        places = list(pairwise([0, *accumulate(counts)]))
        parts = [xp.ascontiguousarray(x[(slice(None),) * axis + (slice(*place),)])
                 for place in places]
        parts[self.rank] = parts[self.rank].copy()     # the tree adds to it; x is not ours
        return cores.tree(self.exchange(parts, [parts[self.rank].shape] * self.size))

    def sum_gradients(self, model):
        """Add up the gradients of the weights that every rank has, those of convolutions: each
        has seen its own pictures. Who had none does not count."""
        weights = [w for _, w in model.parameters() if w.part is None and w.grad is not None]
        if self.size == 1 or not weights:
            return
        with weights[0].device:
            xp = get_array_module(weights[0].grad)
            flat = xp.concatenate([w.grad.ravel() for w in weights])
            counts = np.diff(cores.edges(flat.size, self.size)).tolist()
            places = list(pairwise([0, *accumulate(counts)]))
            seen = self.exchange([flat[slice(*place)] for place in places],
                                 [(counts[self.rank],)] * self.size)
            total = cores.tree([part.copy() if rows else None
                                for part, rows in zip(seen, self.rows, strict=True)])
            flat = self.gather(total, counts, axis=0)
            ends = accumulate(w.grad.size for w in weights)
            for w, end in zip(weights, ends, strict=True):
                w.grad = flat[end - w.grad.size:end].reshape(w.grad.shape)

    def whole(self, w, array):
        """An array of a parameter's shape with the columns of all ranks, on the host; only rank 0
        gets it, the others None."""
        array = to_host(array)
        if self.size == 1 or w.part is None:
            return array
        found = self.at_first(array)
        return np.concatenate(found, axis=-1) if self.first else None

    # how

    def exchange(self, parts, shapes):
        """Give part i to rank i. Returns what each of them gave, arrays of these shapes."""
        return parts

    def everywhere(self, value):
        """What each rank says, in their order: a list. Small things, such as numbers."""
        return [value]

    def at_first(self, value):
        """The same, but only for rank 0; None for the others."""
        return [value]

    def share(self, make):
        """What make() returns on rank 0; the others do not call it."""
        return make()

    def device(self, names):
        """For several ranks: the one device of each, from --device."""

    def compare(self, where, *data_sets):
        """Raise UserError unless all ranks see the same pictures."""

    # ending

    def last_words(self):
        """What stands before an error that is said. What all ranks come upon, rank 0 says: its
        abort ends the others while they wait."""
        if self.first:
            return ""
        time.sleep(0.5 + 0.1 * self.rank)
        progress.speaks = True
        return f"rank {self.rank} on {self.host}: "

    def abort(self, status):
        """End all ranks at once."""


class Pretended(Ranks):
    """One of `size` ranks, where there are no others: to see what it would hold and send."""

    def __init__(self, size, rank=0):
        super().__init__()
        self.size, self.rank = size, rank

    def device(self, names):
        return Device(names or "cpu")

    def exchange(self, parts, shapes):
        own = parts[self.rank]
        self.sent += sum(part.nbytes for i, part in enumerate(parts) if i != self.rank)
        return [own if i == self.rank else get_array_module(own).zeros(shape, own.dtype)
                for i, shape in enumerate(shapes)]


ALONE = current = Ranks()      # current: what mpi.start has made of this process
