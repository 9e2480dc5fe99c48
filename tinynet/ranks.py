"""How do several processes train one net?

As one process would, to the bit. Each is a rank: it has some of the eight lanes (cores.py) of
every batch, and as many lanes of the neurons of the dense layers ("one weird trick",
arXiv:1404.5997). Convolutions are split by pictures, because they compute much and weigh little;
dense layers by neurons, because they weigh much. split.py has the places where the two meet.

Ranks hand on numbers and never let anybody else add them: a sum is made here, as a tree.
"""
import contextlib
import hashlib
import os
import socket
import sys
import time
import warnings
from itertools import accumulate, pairwise

import numpy as np

from . import cores, progress
from .device import Device, get_array_module, gpu_count, is_on_gpu, nccl, to_host
from .errors import UserError
from .progress import say, warn

LATE = 60                      # seconds after which rank 0 says who keeps the others waiting
TAG = 14                       # of the messages that say "here I am"
OF_LAUNCHERS = "PMI", "OMPI_", "PRTE_", "SLURM_", "HYDI_", "MPIR_"      # their variables
# How launchers tell a process how many were started, and which of them it is.
LAUNCHERS = {"Open MPI's mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
             "mpiexec": ("PMI_SIZE", "PMI_RANK"),
             "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")}


class Ranks:
    """What ranks do together. This class is a process that is alone.

    rank, size: number `rank` of `size`. lanes: a range, those that are its own. rows: how many
    rows of the current batch each rank has. talked: seconds spent on messages and on waiting for
    the others; sent: bytes.

    A subclass says how: `exchange`, `everywhere`, `at_first`, `share`, `abort`.
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

    def lanes_of_row(self, row, rows):
        """The lanes of the neurons of one of the figure's rows, as Dense has them: into how many
        they are cut, and which are this rank's."""
        lanes = cores.LANES // rows
        first, last = (min(max(lane - row * lanes, 0), lanes)
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
        weights = [w for _, w in model.parameters() if w.part is None]
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


class Cards:
    """Messages between the cards of several ranks, by NVIDIA's NCCL, on the current stream.

    Nobody waits for them here: what is computed of them waits on the card.
    """

    def __init__(self, ranks, device):
        self.nccl, self.rank = nccl(), ranks.rank
        name = ranks.share(self.nccl.get_unique_id)
        with device:
            self.communicator = self.nccl.NcclCommunicator(ranks.size, name, ranks.rank)

    def exchange(self, parts, shapes):
        own, xp = parts[self.rank], get_array_module(parts[self.rank])
        found = [own if i == self.rank else xp.empty(shape, own.dtype)
                 for i, shape in enumerate(shapes)]
        how = getattr(self.nccl, f"NCCL_FLOAT{8 * own.itemsize}")
        stream = xp.cuda.get_current_stream().ptr
        self.nccl.groupStart()             # all at once: one by one they would wait for each other
        for i, (part, one) in enumerate(zip(parts, found, strict=True)):
            if i != self.rank and part.size:
                self.communicator.send(part.data.ptr, part.size, how, i, stream)
            if i != self.rank and one.size:
                self.communicator.recv(one.data.ptr, one.size, how, i, stream)
        self.nccl.groupEnd()
        return found


class Mpi(Ranks):
    """Processes that an MPI has started. Arrays of cards go by NCCL, or else through the host."""

    cards = None

    def __init__(self, MPI):
        super().__init__()
        self.MPI, self.comm = MPI, MPI.COMM_WORLD
        self.rank, self.size = self.comm.rank, self.comm.size
        self.host = socket.gethostname()
        self.hosts = self.everywhere(self.host)
        self.local = self.hosts[:self.rank].count(self.host)

    def share_cores(self):
        """Use as many threads as there are cores for each of the ranks that may use the same. Say
        who we are."""
        mask, architecture = cores.mask(), cores.architecture()
        everybody = self.everywhere((self.host, mask))
        threads = max(1, len(mask) // everybody.count((self.host, mask)))
        cores.set_threads(threads)
        kinds = self.everywhere(architecture)
        if len(set(kinds)) > 1:
            warn("the ranks run on processors of several kinds, which round differently: with "
                 "OPENBLAS_CORETYPE they agree; now they have " + ", ".join(sorted(set(kinds))))
        count = {host: self.hosts.count(host) for host in self.hosts}
        where = ", ".join(f"{host} {n}" for host, n in count.items())
        say(f"{self.size} ranks on {len(count)} host{'s' * (len(count) > 1)} ({where}), "
            f"{threads} thread{'s' * (threads > 1)} each; {mpi_name(self.MPI)}")
        if threads == 1 and len(mask) == 1 and (os.cpu_count() or 1) >= 2 * count[self.host]:
            warn("each rank was given one core, and others are idle: try mpirun --bind-to none, "
                 "or --map-by socket:PE=16")

    def device(self, names):
        """The one device of this rank: --device, or its card if there are some."""
        cards = gpu_count()
        if names in (None, "gpu"):
            names = f"gpu{self.local}" if cards else "cpu"
            if cards and self.local >= cards:
                raise UserError(f"{self.host} has {cards} GPUs and more ranks than that: two "
                                "cannot share one; start fewer, or give --device cpu")
        if "," in names:
            raise UserError(f"--device {names}: of several ranks each has one device: give "
                            "--device cpu or --device gpu, the card of its number")
        found = Device(names)
        everybody = self.everywhere((self.host, names))
        if found.is_gpu and everybody.count((self.host, names)) > 1:
            raise UserError(f"--device {names}: two ranks on {self.host} cannot share a card: "
                            "give --device gpu, and each takes its own")
        if found.is_gpu:
            try:
                self.cards = Cards(self, found)
            except ImportError as error:
                warn(f"NCCL does not load ({error}): what ranks say goes through the host")
        return found

    def compare(self, where, *data_sets):
        """Raise UserError unless all ranks see the same pictures."""
        seen = [(len(one), len(one.classes), hashlib.sha1(
            repr(one.classes).encode() + one.labels.tobytes()).hexdigest()) for one in data_sets]
        others = self.everywhere(seen)
        for rank, other in enumerate(others):
            if other != others[0]:
                raise UserError(
                    f"{where}: rank {rank} on {self.hosts[rank]} sees "
                    f"{_in_words(other)}, rank 0 on {self.hosts[0]} {_in_words(others[0])}: every "
                    "host needs the same folder")

    def exchange(self, parts, shapes):
        start, own = time.perf_counter(), parts[self.rank]
        self.sent += sum(part.nbytes for i, part in enumerate(parts) if i != self.rank)
        if self.cards and is_on_gpu(own):
            return self.cards.exchange(parts, shapes)
        xp, others = get_array_module(own), [i for i in range(self.size) if i != self.rank]
        found = [np.empty(shape, own.dtype) for shape in shapes]
        requests = [self.comm.Irecv(found[i], i) for i in others if found[i].size]
        requests += [self.comm.Isend(to_host(parts[i]), i) for i in others if parts[i].size]
        self.MPI.Request.Waitall(requests)
        found = [own if i == self.rank else xp.asarray(one) for i, one in enumerate(found)]
        self.talked += time.perf_counter() - start
        return found

    def everywhere(self, value):
        start = time.perf_counter()
        if self.first:
            value = [value, *self._in_time()]
        else:
            self.comm.send(value, 0, TAG)
        found = self.comm.bcast(value, 0)
        self.talked += time.perf_counter() - start
        return found

    def _in_time(self):
        """What the others say to rank 0, in their order; who is late is named, once."""
        missing, found = set(range(1, self.size)), {}
        late = time.perf_counter() + LATE
        while missing:
            for i in sorted(missing):
                if self.comm.iprobe(i, TAG):
                    found[i] = self.comm.recv(source=i, tag=TAG)
            missing -= found.keys()
            if missing and time.perf_counter() > late:
                late = np.inf
                warn(f"for {LATE} seconds the others have been waiting for "
                     + " and ".join(f"rank {i} on {self.hosts[i]}" for i in sorted(missing)))
        return [found[i] for i in sorted(found)]

    def at_first(self, value):
        return self.comm.gather(value, 0)

    def share(self, make):
        if not self.first:
            return self.comm.bcast(None, 0)
        value = make()
        self.comm.bcast(value, 0)
        return value

    def abort(self, status):
        for stream in sys.stdout, sys.stderr:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        time.sleep(0.3)                # the launcher still has to read what was said
        self.comm.Abort(status)


def _in_words(seen):
    return " and ".join(f"{count:,} pictures of {classes} classes" for count, classes, _ in seen)


ALONE = current = Ranks()      # current: what this process has started as


# --- starting and ending ----------------------------------------------------------------


def told():
    """What a launcher has told this process: how many there are, which it is, and whose word
    that is. (1, 0, "") without one."""
    for name, variables in LAUNCHERS.items():
        size, rank = (os.environ.get(variable, "") for variable in variables)
        if size.isdecimal() and rank.isdecimal() and int(size) > 1:
            return int(size), int(rank), name
    return 1, 0, ""


def start(alone=False):
    """The Ranks that this process is one of; ALONE without a launcher. Raises UserError if they
    could not train one net together, or if they should not: alone."""
    global current
    size, rank, launcher = told()
    progress.speaks = rank == 0
    if size == 1:
        return ALONE
    if alone:
        raise UserError(f"{launcher} has started {size} processes, but only train and bench are "
                        "for several; run this one without it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")            # of what is an error below
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:       # RuntimeError: there is no MPI
        raise UserError(
            f"{size} processes were started, but mpi4py does not load ({error}): each would "
            'train a net of its own; type\n  pip install -e ".[mpi-local]"') from None
    if size != MPI.COMM_WORLD.size:
        raise UserError(
            f"{launcher} has started {size} processes, but mpi4py uses another MPI, "
            f"{mpi_name(MPI)}, for which each of them is alone: start them with the mpirun of "
            "that one, or with srun --mpi=pmix")
    if cores.LANES % size:
        fit = ", ".join(str(n) for n in range(1, cores.LANES + 1) if cores.LANES % n == 0)
        raise UserError(f"{size} ranks do not fit into the {cores.LANES} lanes of a batch; those "
                        f"that fit: {fit}")
    current = Mpi(MPI)
    current.share_cores()
    return current


def mpi_name(MPI):
    """ "MPICH 5.0.2" """
    name, version = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, version))}"
