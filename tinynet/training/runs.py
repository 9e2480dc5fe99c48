"""Where does a training run stand, and what does it leave in its folder?

last.npz     everything that is needed to go on
best.npz     the same, after the validation with the lowest top-1 error
log.jsonl    the settings, every report and every validation, one JSON object a line

best.npz is written first. Killed between the two, a run goes on from last.npz and comes to the
same best once more.
"""
import json
import math
import os
import tempfile
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np

from .. import store
from ..device import to_host
from ..errors import Interrupted, UserError
from ..progress import bar, say, shown, warn
from ..ranks import ALONE
from .claim import Claim
from .evaluation import Meter, in_words, pace
from .log import Log
from .program import os_error
from .saved import Saved, checkpoint_in, lowest_error
from .signals import Interruptible

SLOW = 600                     # seconds: what takes longer is said at the start
WAITING = 0.2                  # share of the time above which waiting for pictures is told


class Diverged(UserError):
    """The loss or a weight is no finite number any more; the last good checkpoint stays."""


class Run:
    """A training run: what is counted, said, logged, saved and restored of it.

    folder: is made, and is this run's alone to the end of the block; a path, or a claim.Claim.
    model, optimizer: are saved and restored. loader: gives the batches; it has batch_size,
    length(epoch) in pictures and training(epoch, start), as pictures.batches.Loader has.
    epochs: how many there will be; stop_at: a step after which to end. saved: a Saved with
    the settings that go into every checkpoint. arrays: what else goes into it, by name.
    ranks: if there are several, rank 0 alone writes, and the others need a name for folder only.
    plateau: lowers the rate after validations. watch: a stall.StallWatch. print_freq,
    save_freq: steps between two reports, two checkpoints; with `points` instead of print_freq
    every epoch has as many reports, and history keeps them. The rest is said to the reader.

        with run:
            while run.goes_on():
                for batch in run.batches():
                    ...                                    # a step
                    run.saw(loss, logits, labels)
                run.validated(evaluate(...))

    Leaving the block raises Interrupted if somebody pressed Ctrl-C, and everything is saved.
    """

    def __init__(self, folder, model, optimizer, loader, *, epochs, stop_at=None, saved=None,
                 arrays=(), plateau=None, watch=None, print_freq=None, save_freq=None, points=1,
                 how_to_go_on="the same command goes on", if_slow="", if_waiting="", rate="rate",
                 ranks=ALONE):
        self.claim, self.ranks, self.folder = None, ranks, folder
        if ranks.first:
            with self._writing(folder):
                self.claim = folder if isinstance(folder, Claim) else Claim(folder)
            self.folder = self.claim.folder
        self.last, self.best = self.folder / "last.npz", self.folder / "best.npz"
        self.log_file = Log(self.folder / "log.jsonl")
        self.model, self.optimizer, self.loader = model, optimizer, loader
        self.epochs, self.stop_at = epochs, stop_at
        self.saved, self.extra = saved or Saved(), dict(arrays)
        self.classes = len(self.saved.classes or ()) or 10         # CIFAR-10's, in the examples
        self.plateau, self.watch, self.rate = plateau, watch, rate
        self.print_freq, self.save_freq, self.points = print_freq, save_freq, points
        self.how_to_go_on, self.if_slow, self.if_waiting = how_to_go_on, if_slow, if_waiting
        self.at, self.history = self.saved.progress, self.saved.history
        self.meter, self.interrupted = Meter(ranks), Interruptible(ranks)
        self.stalled = False               # the watch has just noticed that nothing is learned
        self.improved = False              # the last validation is the best so far
        self.result, self.told_waiting = None, False           # result: of the last validation

    # where it stands

    @property
    def epoch(self):
        """How many epochs are behind us."""
        return self.at.epoch

    @property
    def step(self):
        """How many steps are behind us."""
        return self.at.step

    @property
    def epochs_done(self):
        """How many epochs are behind us, with the part of this one."""
        return self.at.epoch + self.at.position / self.loader.length(self.at.epoch)

    def goes_on(self):
        """Whether there is another epoch, or the validation of one, to come."""
        seen = [row.get("step") for row in self.history if row["kind"] == "validation"][-1:]
        left = self.step < self.last_step or self._epoch_is_over() or seen != [self.step]
        return self.epoch < self.epochs and left and not self.interrupted

    @cached_property
    def all_steps(self):
        """How many steps there will be in all; the batch size may be another than before."""
        left = [self.loader.length(epoch) for epoch in range(self.epoch, self.epochs)]
        if left:
            left[0] = max(left[0] - self.at.position, 0)       # there may be fewer than before
        return self.step + sum(-(-count // self.loader.batch_size) for count in left)

    @cached_property
    def last_step(self):
        """The step after which this run ends."""
        return min(self.stop_at or self.all_steps, self.all_steps)

    # starting and going on

    def restore(self, saved, lr=None):
        """Go on from a Saved; `lr`, if given, replaces its learning rate."""
        self._refuse_other_settings(saved)
        saved.load_weights(self.model, self.ranks)
        weights = self.optimizer.parameters
        velocities = saved.arrays_of("velocity/", weights.items(), self.ranks)
        for name, (w, array) in zip(weights, velocities, strict=True):
            self.optimizer.velocity[name] = w.device.put(array)
        self.at, self.history = saved.progress, saved.history
        with self._writing(self.best):
            self.at.lowest_error = self.ranks.share(lambda: lowest_error(saved, self.best))
        if self.plateau:
            self.plateau.restore(self.at.plateau)
        here = self.ranks.first and saved.path.parent.samefile(self.folder)
        if here and self.at.logged is not None:
            self.log_file.cut(self.at.logged)         # what came after would stand there twice
        if self.at.lr:
            self.optimizer.lr = self.at.lr if lr is None else lr
        if saved.unreported and not self.print_freq:
            self.meter.pictures, sums = saved.unreported
            device = next(iter(weights.values())).device
            self.meter.sums = device.put(np.array(sums))
        rate = "" if not self.at.lr else f", lr {self.at.lr:g}" if lr is None else (
            f"; --lr {lr:g} wins over {self.at.lr:g}")
        say(f"resumed {shown(saved.path)}: epoch {self.epoch + 1}, step {self.step}{rate}")
        return self

    def resume(self):
        """Go on from last.npz in the folder, if it is there; else this is a new run."""
        old = self.folder.with_name(self.folder.name + ".npz")     # where 0.1 had it
        path = checkpoint_in(self.folder) or old
        return self.restore(Saved.read(path)) if path.exists() else self

    def _refuse_other_settings(self, saved):
        own = json.loads(json.dumps(self.saved.settings))          # tuples become lists
        if own and "pictures" not in (saved.settings or own):
            own.pop("pictures", None)                  # an older run, which did not keep it
        if saved.settings != own:
            raise UserError(f"{shown(saved.path)} was made with other settings:\n"
                            f"    {saved.settings}\nnot\n    {own}\n"
                            "rename or delete it to train anew")

    def __enter__(self):
        if self.ranks.first and self.log_file.path.is_file() and not checkpoint_in(self.folder):
            os.replace(self.log_file.path, self.folder / "log.old.jsonl")      # of a lost run
        self.log(dict(kind="start", step=self.step, **self.saved.settings_of_run()))
        if not self.print_freq:
            say(f"{shown(self.folder)}:")
            if not self.last.exists():
                self.save()                # what would keep us from it shows now, not in an hour
        self.interrupted.__enter__()
        self.bar = bar(self.last_step, self._where(), self.step)
        self.inside_step = False
        return self

    def __exit__(self, kind, error, trace):
        kept = ""
        if isinstance(error, Exception) and not isinstance(error, Diverged) and self.step and (
                self.ranks.size == 1) and (            # else the others are not here to help
                not self.inside_step or not _is_within(self.optimizer.step, trace)):
            kept = self._rescue()          # what was learned, whatever went wrong
        self.interrupted.__exit__()
        if self.ranks.first:
            self.claim.close()
        with suppress(OSError):            # of a terminal that is gone
            self.bar.close()
        if self.interrupted and (error is None or kept and isinstance(error, UserError)):
            self.ranks.ended_together = True           # a signal may have ended readers as well
            raise Interrupted(self.how_to_go_on)
        if isinstance(error, UserError) and kept:
            raise UserError(f"{error}\n{kept}") from error
        if kept:
            warn(kept)

    def _rescue(self):
        """Save in the folder, even if somebody has removed it; else wherever one can. Returns
        what to say of it."""
        with suppress(OSError, UserError, RuntimeError):       # RuntimeError: of a broken card
            if not self.claim.is_ours():
                self.claim = Claim(self.folder)        # somebody else may have it now
                if checkpoint_in(self.folder):
                    raise UserError("of another run")
            self.save()
            return f"what was learned is saved: {self.how_to_go_on}"
        name = f"{self.folder.name}-step-{self.step}-{os.urandom(3).hex()}.npz"
        for place in tempfile.gettempdir, Path.home:   # each fails where there is none
            with suppress(OSError, UserError, RuntimeError):
                store.save(path := Path(place(), name), *self._content())
                return (f"what was learned until step {self.step} is in {path}: move it to "
                        f"{shown(self.last)}, and {self.how_to_go_on}")
        return f"it could be saved nowhere, not among temporary files either: {self._kept()}"

    # a step

    def batches(self):
        """The rest of this epoch, batch by batch; what comes between two of them is a step.

        Ends early at the last step, or when somebody pressed Ctrl-C. Raises Diverged.
        """
        length, before, start = self.loader.length(self.epoch), self.step, time.perf_counter()
        if self.step >= self.last_step and not self._epoch_is_over():
            return                         # all but the validation
        for batch in self.loader.training(self.epoch, self.at.position):
            self.batch, self.inside_step, first = batch, True, self.at.position
            with self.ranks.batch(batch.lanes):
                yield batch
            self.at.seconds += time.perf_counter() - start
            self.bar.update()
            over = batch.end == length
            if self.step == before + 3 and not before:
                self._say_what_it_costs(start)
            if self.step == self.last_step or self.interrupted and not over:
                break
            if self.print_freq and self.step % self.print_freq == 0:
                self.report()
            elif batch.end * self.points // length > first * self.points // length and not over:
                self.report()
                self.save()
            if self.save_freq and self.step % self.save_freq == 0:
                self.save()
            start = time.perf_counter()
        else:
            self.at.position = length      # even if the last ones are unreadable
        if self.print_freq or self.at.position == length:
            self.report()

    def saw(self, loss, logits, labels):
        """Count the step that was just taken, before anything else can fail: who saves the net
        then must not take it again. labels: an array on the logits' device."""
        self.at.step, self.at.position, self.inside_step = self.step + 1, self.batch.end, False
        self.meter.add(loss, logits, labels, self.batch.waited)
        self.stalled = bool(self.watch and self.watch.saw(self.step, loss))

    # what is said

    def _where(self):
        return f"epoch {min(self.epoch + 1, self.epochs)}/{self.epochs}"

    def _say_what_it_costs(self, start):
        """After the third step of a new run: how long all of them will take, if that is long."""
        seconds = (time.perf_counter() - start) * (self.last_step - self.step)
        if seconds > SLOW:
            say(f"on this machine all {self.last_step:,} steps will take about " + (
                f"{seconds / 3600:.0f} hours" if seconds > 7200 else
                f"{seconds / 60:.0f} minutes") + self.if_slow)

    def report(self):
        """Say and log what happened since the last report. Raises Diverged."""
        if not self.meter.pictures:
            return
        seen = self.meter.read()
        self.meter.reset()
        if not math.isfinite(seen["loss"]):
            raise self._diverged(f"the loss is {seen['loss']}")
        say(f"{self._where()}  step {self.step}  {in_words(seen, self.classes)}  {pace(seen)}")
        if seen["waited"] > WAITING and self.step > 10 and not self.told_waiting:
            self.told_waiting = True
            say(f"{seen['waited']:.0%} of the time the net waits for pictures{self.if_waiting}")
        self.bar.set_description_str(self._where())
        self.bar.set_postfix_str(f"loss {seen['loss']:.3f}, error {seen['top1_error']:.1%}")
        row = self._log("train", **seen)
        if not self.print_freq:
            self.history.append(row)

    def validated(self, result, of=None):
        """Take the result of a validation, as evaluation.evaluate gives it, and save. of: how
        many pictures there are, if some could not be read.

        At the end of an epoch the next one begins, and the plateau may lower the rate. None:
        the validation was broken off, and the epoch still waits for it.
        """
        if result is not None:
            if not math.isfinite(result["loss"]):
                raise self._diverged(f"the loss of the validation is {result['loss']}")
            self.result = result
            error, count = result["top1_error"], result["pictures"]
            if of and count < of:          # what cannot be read is not right: else a disk that
                error = 1 - (1 - error) * count / of               # fails makes the best net
            self.improved = error < self.at.lowest_error
            self.at.lowest_error = min(self.at.lowest_error, error)
            say(f"{self._where()}  validation: {in_words(result, self.classes)}"
                + f" of {count:,} that can be read" * (error != result["top1_error"])
                + ", best so far" * self.improved)
            self.history.append(self._log("validation", **result))
            if self._epoch_is_over() and self.plateau:
                self.optimizer.lr *= self.plateau.multiplier(error)
            return self.end_epoch()
        self.save()

    def end_epoch(self):
        """Save; if this epoch is over, the next one begins."""
        if self._epoch_is_over():
            self.at.epoch, self.at.position = self.epoch + 1, 0
        self.save()
        self.meter.reset()

    def _epoch_is_over(self):
        return self.at.position >= self.loader.length(self.epoch)      # there may be fewer now

    def _log(self, kind, **values):
        row = dict(kind=kind, epoch=self.epoch + 1, step=self.step, lr=self.optimizer.lr,
                   epochs=self.epochs_done, seconds=round(self.at.seconds, 1), **values)
        self.log(row)
        return row

    def log(self, row):
        """Add a row, anything that JSON can hold, to log.jsonl."""
        if not self.ranks.first:
            return
        with self._writing(self.log_file.path):
            self.log_file.add(row)

    # what is kept

    def save(self):
        """Write last.npz, and best.npz if the last validation was the best.

        Weights that are not finite are not saved: the last good checkpoint stays.
        """
        content = self._content()
        if self.ranks.first:
            first = self.best if self.improved else self.last
            with self._writing(first):
                store.save(first, *content)
            if self.improved:
                with self._writing(self.last):
                    store.second_name(self.best, self.last)
        self.improved = False

    def _content(self):
        """The arrays and the meta of a checkpoint, as it stands."""
        arrays = dict(self.extra)
        for name, w in self.model.parameters():
            arrays[f"weights/{name}"] = self.ranks.whole(w, w.data)
            arrays[f"velocity/{name}"] = self.ranks.whole(w, self.optimizer.velocity[name])
        if not self.ranks.share(lambda: all(np.isfinite(array.sum())
                                            for array in arrays.values())):
            raise self._diverged("some weights are no finite numbers")
        self.at.lr = self.optimizer.lr
        if self.plateau:
            self.at.plateau = {name: getattr(self.plateau, name) for name in self.plateau.STATE}
        self.at.logged = self.log_file.size() if self.ranks.first else None
        self.saved.progress, self.saved.history = self.at, self.history
        sums = self.meter.sums
        self.saved.unreported = None if sums is None else [
            self.meter.pictures, to_host(sums).tolist()]
        return arrays, asdict(self.saved)

    @contextmanager
    def _writing(self, path):
        """A full disk or a missing right, said in the reader's terms; and a folder that is ours
        no more."""
        if self.claim and not self.claim.is_ours():
            raise UserError(f"cannot write {shown(path)}: its folder was removed or renamed")
        try:
            yield
        except OSError as error:
            error.filename = path
            raise UserError(f"cannot write {os_error(error)}") from error

    def _diverged(self, why):
        return Diverged(f"{self.folder.name}: step {self.step}: {why}: training has diverged; "
                        f"{self._kept()} with a smaller {self.rate}")

    def _kept(self):
        return (f"the last good checkpoint is {shown(self.last)}; go on from it"
                if self.last.exists() else "nothing was saved yet; start again")


def _is_within(function, trace):
    """Whether an error came out of a function: so an update is half done, say."""
    code = function.__func__.__code__
    return any(frame.f_code is code for frame, _ in traceback.walk_tb(trace))
