"""How do numbers travel between processes, and how do these find each other?

By MPI, which starts them and gives each its number; between NVIDIA cards by NCCL. mpi4py is
imported only if a launcher says that there are several.
"""
import contextlib
import hashlib
import os
import platform
import sys
import time
import warnings

import numpy as np

from . import cores, progress, ranks
from .device import Device, cupy, get_array_module, gpu_count, is_on_gpu, nccl, to_host
from .errors import UserError
from .progress import say, warn
from .ranks import Ranks

LATE = 60                      # seconds after which rank 0 says who keeps the others waiting
TAG = 14                       # of the messages that say "here I am"


class Nccl:
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
        stream = cupy().cuda.get_current_stream().ptr
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

    by_nccl = None

    def __init__(self, MPI):
        super().__init__()
        self.MPI, self.comm = MPI, MPI.COMM_WORLD
        self.rank, self.size = self.comm.rank, self.comm.size
        self.host = platform.node()
        self.hosts = self.everywhere(self.host)
        self.local = self.hosts[:self.rank].count(self.host)

    def share_cores(self, quiet):
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
        if not quiet:
            say(f"{self.size} ranks on {len(count)} host{'s' * (len(count) > 1)} ({where}), "
                f"{threads} thread{'s' * (threads > 1)} each; {mpi_name(self.MPI)}")
        if threads == 1 and len(mask) == 1 and (os.cpu_count() or 1) >= 2 * count[self.host]:
            warn("each rank was given one core, and others are idle: try mpirun --bind-to none, "
                 "or --map-by socket:PE=16")

    def device(self, names):
        """The one device of this rank: --device, or its card if there are some."""
        count = gpu_count()                # of those that it sees: it may be only its own
        if names in (None, "gpu"):
            names = f"gpu{self.local % max(count, 1)}" if count or names else "cpu"
        if "," in names:
            raise UserError(f"--device {names}: of several ranks each has one device: give "
                            "--device cpu or --device gpu, the card of its number")
        found = Device(names)
        card = found.cuda.pci_bus_id if found.is_gpu else ""
        everybody = self.everywhere((self.host, names, card))
        if len({name.startswith("gpu") for _, name, _ in everybody}) > 1:
            raise UserError("some ranks have a card, others none (" + ", ".join(
                f"{name} on {host}" for host, name, _ in everybody) + "): give --device cpu, or "
                "look at the hosts with alexnet.py doctor")
        if card and [(host, one) for host, _, one in everybody].count((self.host, card)) > 1:
            raise UserError(f"--device {names}: two ranks on {self.host} cannot share a card: "
                            "with --device gpu each takes its own; start no more of them than "
                            "there are cards, or give --device cpu")
        if found.is_gpu:                                   # all have cards; NCCL all, or none
            problems = [f"on {host}: {problem}" for host, problem in self.everywhere(
                (self.host, _problem_of_nccl())) if problem]
            if problems:
                warn(f"NCCL does not load ({problems[0]}): what ranks say goes through the host")
            else:
                self.by_nccl = Nccl(self, found)
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
        if self.by_nccl and is_on_gpu(own):
            return self.by_nccl.exchange(parts, shapes)
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


# --- starting and ending ----------------------------------------------------------------


def start(alone=False, quiet=False):
    """The Ranks that this process is one of; ALONE without a launcher. Raises UserError if they
    could not train one net together, or if they should not: alone. quiet: nothing else is said."""
    size, rank, launcher = ranks.told()
    progress.speaks = rank == 0
    if size == 1:
        return ranks.ALONE
    if alone:
        raise UserError(f"{launcher} has started {size} processes, but only alexnet.py train and "
                        "bench are for several; run this one without it")
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
    ranks.current = Mpi(MPI)
    ranks.current.share_cores(quiet)
    return ranks.current


def mpi_name(MPI):
    """ "MPICH 5.0.2" """
    name, version = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, version))}"


def _problem_of_nccl():
    """Why it does not load here; an empty text if it does."""
    try:
        nccl()
    except ImportError as error:
        return str(error) or "ImportError"
    return ""
