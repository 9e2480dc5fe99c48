"""What does a net say of many pictures, and what do several say together? (paper, section 6)

Together: the mean of their probabilities, perhaps a weighted one. The authors had a tool that
looked for the weights on a validation set, and so does `search`.
"""
import numpy as np

from .. import device, ops
from ..engine import Tensor, no_grad
from ..progress import bar

GRID = np.arange(21) / 20             # the weights that are tried: 0, 0.05, ... 1


def log_probabilities(model, loader, views):
    """What a net says of all pictures of a loader: logarithms (N, classes), labels (N,), and
    which pictures they are (N,)."""
    model.eval()
    found = []
    with bar(len(loader), "testing") as progress, no_grad():
        for batch in loader.testing(views):
            found.append((device.to_host(view_means(model, batch, views).data), batch.labels,
                          batch.indices))
            progress.update()
    return [np.concatenate(parts) for parts in zip(*found)]


def view_means(model, batch, views):
    """Log of the mean probability over the views of each picture of a batch: a tensor."""
    crops = batch.images.reshape(-1, *batch.images.shape[-3:])
    logits = model(Tensor(crops, model.devices[0]))
    with logits.device:
        return Tensor(ops.mean_over_views(logits.data, views), logits.device)


def result(logs, labels):
    """Loss and errors of log probabilities, as Meter.read gives them."""
    return dict(loss=-logs[np.arange(len(labels)), labels].mean(),
                top1_error=ops.errors(logs, labels, 1) / len(labels),
                top5_error=ops.errors(logs, labels, min(5, logs.shape[1])) / len(labels))


def average(logs, weights):
    """Log of the weighted mean probability of each class.

    logs: log probabilities (nets, N, classes), a NumPy array; weights: one for each net, of
    any sum above 0 -> (N, classes)
    """
    largest = logs.max(axis=0)
    shares = (np.asarray(weights) / np.sum(weights)).astype(logs.dtype)
    return largest + np.log(sum(share * np.exp(log - largest)
                                for share, log in zip(shares, logs)))


def search(logs, labels, k=5):
    """Weights with a low top-k error: a list of floats, one for each net.

    One coordinate after the other, from 0.5 each, as the authors' tool did it, until no
    single change helps. They are fitted to these labels: the error on them flatters.
    """
    weights = [0.5] * len(logs)
    lowest = ops.errors(average(logs, weights), labels, k)
    better = True
    while better:
        better = False
        for net in range(len(logs)):
            for weight in GRID:
                tried = [*weights[:net], float(weight), *weights[net + 1:]]
                if not any(tried):
                    continue
                error = ops.errors(average(logs, tried), labels, k)
                if error < lowest:
                    weights, lowest, better = tried, error, True
    return weights
