"""How good is a net on pictures, and how good are several together? (paper, section 6)

Several nets together say the mean of their probabilities, perhaps a weighted one. The authors
had a tool that looked for the weights on a validation set, and so does `search`.
"""
import functools
import time
from contextlib import nullcontext

import numpy as np

from .. import ops
from ..device import get_array_module, to_host
from ..engine import Tensor, no_grad
from ..progress import bar
from ..ranks import ALONE
from ..store import replacing

GRID = np.arange(21) / 20             # the weights that are tried: 0, 0.05, ... 1


# --- counting errors --------------------------------------------------------------------


def classes_above(logits, labels):
    """How many classes every row has above its label, or beside it: 0 if it is right.

    logits (N, classes), labels (N,), both arrays of one device -> (N,) integers. What ties with
    the label, or is a NaN, counts as above: a net that says the same of every class is always
    wrong, as it should be.
    """
    xp = get_array_module(logits)
    labels = xp.asarray(labels)
    own = logits[xp.arange(len(labels)), labels][:, None]
    return (~(logits < own)).sum(axis=-1) - 1          # less one: the label itself


def wrong(logits, labels, k):
    """How many rows do not have their label among the k largest logits: one number."""
    return (classes_above(logits, labels) >= k).sum()


class Meter:
    """Loss and errors summed over batches, on the device until somebody reads them.

    Reading a number makes the host wait for a GPU, so it is not done at every step.
    """

    def __init__(self, ranks=ALONE):
        self.ranks = ranks
        self.reset()

    def reset(self):
        self.sums = None
        self.pictures, self.waited = 0, 0.0
        self.start, self.talked = time.perf_counter(), self.ranks.talked

    def add(self, loss, logits, labels, waited=0.0):
        """Count a batch.

        loss, logits: tensors. labels: an array on their device. waited: seconds spent on
        waiting for pictures. With five classes or fewer, top-5 errors are 0.
        """
        count, classes = logits.shape
        xp = get_array_module(logits.data)
        with logits.device:
            above = classes_above(logits.data, labels)
            sums = xp.stack([loss.data * count, (above >= 1).sum(),
                             (above >= min(5, classes)).sum()],
                            dtype=xp.float64)          # counts beyond 2**24 stay exact
            self.sums = sums if self.sums is None else self.sums + sums
        self.pictures += count
        self.waited += waited

    def read(self):
        """Means since the last reset, as a dict. Errors and waited are shares (0 ... 1). With
        several ranks, talked is the share of time that messages took; of talked and of waited
        the largest of all ranks counts."""
        loss, top1, top5 = (to_host(self.sums) / self.pictures).tolist()
        seconds = time.perf_counter() - self.start
        seen = dict(loss=loss, top1_error=top1, top5_error=top5, pictures=self.pictures,
                    images_per_s=self.pictures / seconds,
                    waited=min(1.0, self.waited / seconds))    # a GPU is late to say so
        if self.ranks.size > 1:
            talked = (self.ranks.talked - self.talked) / seconds
            waits, talks = zip(*self.ranks.everywhere((seen["waited"], talked)), strict=True)
            seen.update(waited=max(waits), talked=max(talks))
        return seen


def in_words(seen, classes):
    """Loss and errors, as Meter.read gives them, for a line of text."""
    top5 = f" (top-5 {seen['top5_error']:.1%})" if classes > 5 else ""      # else it is 0
    return f"loss {seen['loss']:.4f}  error {seen['top1_error']:.1%}{top5}"


def pace(seen):
    """The speed; of several ranks also the shares of time for messages, and without pictures."""
    pace = f"{seen['images_per_s']:.0f} images/s"
    if "talked" in seen:
        pace += f"  talked {seen['talked']:.0%}  waited {seen['waited']:.0%}"
    return pace


def save(path, probabilities, labels, classes, names):
    """Write what a net says of every picture to an .npz file."""
    with replacing(path) as file:
        np.savez(file, probabilities=probabilities, labels=labels, classes=classes, names=names)


# --- the loop over pictures to test with --------------------------------------------------


def answers(model, loader, device, views=1, what="testing"):
    """What a net says of every batch of a loader: yields (batch, logits), logits a tensor.

    model: is put into test mode. device: where its first layer lives. views: how many views
    of each picture the loader gives; of several, the logits are the logarithms of their mean
    probabilities. what: the bar is called, None: no bar.
    """
    model.eval()
    with bar(len(loader), what) if what else nullcontext() as progress:
        for batch in loader.testing(views):
            with no_grad(), getattr(model, "ranks", ALONE).batch(batch.lanes):
                logits = model(*[images.reshape(-1, *images.shape[-3:])
                                 for images in batch.tensors(device)])
            if views > 1:
                with logits.device:
                    logits = Tensor(mean_over_views(logits.data, views), logits.device)
            yield batch, logits
            if what:
                progress.update()


def evaluate(model, loader, device, views=1, interrupted=False):
    """Loss and errors over all pictures of a loader: a dict as Meter.read gives it.

    None if `interrupted` became true on the way.
    """
    meter = Meter(getattr(model, "ranks", ALONE))
    for batch, logits in answers(model, loader, device, views):
        if interrupted:
            return None
        with no_grad():
            labels = logits.device.put(batch.labels)
            loss = ops.softmax_cross_entropy(logits, labels=labels)
        meter.add(loss, logits, labels, batch.waited)
    return meter.read()


def mean_over_views(logits, views):
    """Log of the mean probability of each class over the views of each picture (an array).

    logits (N * views, classes) -> (N, classes). The mean is of probabilities, as in the paper
    (section 4.1), but taken in logarithms, where a very small one does not become zero.
    """
    xp = get_array_module(logits)
    logs = ops.log_softmax(logits).reshape(-1, views, logits.shape[-1])
    largest = logs.max(axis=1, keepdims=True)
    return largest[:, 0] + xp.log(xp.exp(logs - largest).mean(axis=1))


# --- several nets -----------------------------------------------------------------------


def log_probabilities(model, loader, device, views=1):
    """What a net says of all pictures of a loader: logarithms of probabilities (N, classes),
    labels (N,) and which pictures they are (N,)."""
    found = [(ops.log_softmax(to_host(logits.data)), batch.labels, batch.indices)
             for batch, logits in answers(model, loader, device, views)]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def result(logs, labels):
    """Loss and errors of log probabilities (N, classes), as Meter.read gives them."""
    return dict(loss=-logs[np.arange(len(labels)), labels].mean(),
                top1_error=wrong(logs, labels, 1) / len(labels),
                top5_error=wrong(logs, labels, min(5, logs.shape[1])) / len(labels))


def answered(logs, labels):
    """The class that a net says every picture is of: its label only if no other is as probable,
    so that errors of classes add up to the top-1 error.

    logs: log probabilities (N, classes). labels (N,) -> (N,) integers.
    """
    others = logs.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return np.where(classes_above(logs, labels) > 0, others.argmax(axis=1), labels)


def confusion(labels, said, count):
    """How many pictures of each class are called what: labels, said (N,) -> (count, count)"""
    return np.bincount(labels * count + said, minlength=count * count).reshape(count, count)


def by_class(logs, labels, classes, words):
    """Lines that say the error of each class, worst first, and what its pictures are called most
    often instead.

    logs: log probabilities (N, classes). labels (N,). classes: their names; words: what they are.
    A class without pictures has no line.
    """
    called = confusion(labels, answered(logs, labels), len(classes))
    pictures = called.sum(axis=1)
    np.fill_diagonal(called, 0)
    wrong = called.sum(axis=1)
    error = wrong / np.maximum(pictures, 1)
    names = [f"{name} {words.get(name, '').partition(',')[0]}".strip() for name in classes]
    widest = min(max(map(len, names)), 28)
    yield "error of each class, worst first, and what it is most often called instead:"
    for label in np.argsort(-error, kind="stable"):
        if pictures[label]:
            other = called[label].argmax()
            most = f"  {names[other]} ({called[label, other]})" if wrong[label] else ""
            yield (f"  {error[label]:6.1%} {wrong[label]:5} of {pictures[label]:<5} "
                   f"{names[label]:{widest}}{most}").rstrip()


def together(logs, labels, weights):
    """What several nets say together: the log of their mean probability (N, classes), and lines
    of text about it.

    logs: log probabilities (nets, N, classes). labels (N,). weights: one for each net, or
    "search".
    """
    if len(logs) == 1:
        return logs[0], []                             # it is the mean already
    classes, lines = logs.shape[-1], []
    if weights == "search":
        k = 5 if classes > 5 else 1                    # a top-5 error of 5 classes is 0
        weights = search(logs, labels, k)
        lines = [f"weights with the lowest top-{k} error found on these very pictures, which",
                 "flatters them; for others:  --weights " + ",".join(f"{w:g}" for w in weights)]
    mean = average(logs, weights)
    shares = ", ".join(f"{weight:g}" for weight in weights)
    return mean, [*lines, f"mean of the {len(logs)} nets, weighted {shares}:",
                  f"  {in_words(result(mean, labels), classes)}"]


def average(logs, weights):
    """Log of the weighted mean probability of each class.

    logs: log probabilities (nets, N, classes), a NumPy array; weights: one for each net, of
    any sum above 0 -> (N, classes)
    """
    shares = (np.asarray(weights) / np.sum(weights)).astype(logs.dtype)
    counting = [(share, log) for share, log in zip(shares, logs, strict=True) if share > 0]
    largest = functools.reduce(np.maximum, [log for _, log in counting])
    return largest + np.log(sum(share * np.exp(log - largest) for share, log in counting))


def search(logs, labels, k=5):
    """Weights with a low top-k error: a list of floats, one for each net.

    One coordinate after the other, from 0.5 each, as the authors' tool did it, until no
    single change helps. They are fitted to these labels: the error on them flatters.
    """
    weights = [0.5] * len(logs)
    lowest = wrong(average(logs, weights), labels, k)
    better = True
    while better:
        better = False
        for net in range(len(logs)):
            for weight in GRID:
                tried = [*weights[:net], float(weight), *weights[net + 1:]]
                if not any(tried):
                    continue
                error = wrong(average(logs, tried), labels, k)
                if error < lowest:
                    weights, lowest, better = tried, error, True
    return weights
