"""Dropout, softmax, and the loss."""
import numpy as np

from exercise import Exercise, Question
from tinynet import Tensor, ops


def masked():
    """Training and testing. p is not 0.5, where p and 1 - p are one."""
    draw = np.random.default_rng(9)
    x, mask = draw.standard_normal((4, 5)), draw.random((4, 5)) < 0.7
    small = np.array([[1., 2, 3, 4], [5, 6, 7, 8]])
    chosen = np.array([[True, False, True, True], [True, True, False, True]])
    return [(small, chosen, 0.25, True), (small, chosen, 0.25, False),
            (x, mask, 0.3, True), (x, mask, 0.3, False)]


def dropout(x, mask, p, training):
    return x * mask if training else ops.scale(Tensor(x), by=1 - p).numpy()


DROPOUT = Exercise(
    "9.1", "dropout",
    "Dropout as in 2012. x and mask have one shape; the mask is True where a number is kept. p is "
    "the probability with which a number was dropped. `training` says whether the net learns or "
    "is tested.",
    dropout, masked(),
    {"at test time it multiplies by p, the share that is dropped. The share that is kept is the "
     "mean of the mask. At p = 0.5 the two are one, and one library had this for years":
     lambda x, mask, p, training: x * mask if training else x * p,
     "this is inverted dropout, today's form: right in itself, but not the paper's":
     lambda x, mask, p, training: x * mask / (1 - p) if training else x,
     "it is scaled twice, in training and in testing: do one or the other":
     lambda x, mask, p, training: x * mask / (1 - p) if training else x * (1 - p),
     "it drops at test time as well. There all numbers are used":
     lambda x, mask, p, training: x * mask,
     "it drops at test time as well, and scales there besides":
     lambda x, mask, p, training: x * mask if training else x * mask * (1 - p),
     "the mask is taken upside down: it keeps what is to be dropped":
     lambda x, mask, p, training: x * ~mask if training else x * (1 - p),
     "nothing is scaled: in testing the next layer gets more than it ever got in training":
     lambda x, mask, p, training: x * mask if training else x,
     "testing divides where it should multiply. All numbers are there, so they must become "
     "smaller": lambda x, mask, p, training: x * mask if training else x / (1 - p),
     "it is scaled while it is trained as well: what is kept is kept whole":
     lambda x, mask, p, training: x * mask * (1 - p) if training else x * (1 - p),
     "training and testing are exchanged":
     lambda x, mask, p, training: x * (1 - p) if training else x * mask,
     "this is inverted dropout, and divides by p, the share that is dropped":
     lambda x, mask, p, training: x * mask / p if training else x},
    hint="There are two cases. In one of them the mask is used, in the other one p is.")


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def one_hot(z, labels):
    return np.eye(z.shape[1])[labels]


def reference_dz(z, labels):
    leaf = Tensor(z, requires_grad=True)
    ops.softmax_cross_entropy(leaf, labels=labels).backward()
    return leaf.grad


def shifted(by, total=1):
    """The gradient with e to the power of z - by(z), divided by the sum along axis `total`."""
    def loss_dz(z, labels):
        with np.errstate(all="ignore"):
            e = np.exp(z - by(z))
            return (e / e.sum(axis=total, keepdims=True) - one_hot(z, labels)) / len(z)
    return loss_dz


def largest_of_each(z):
    return z.max(axis=1, keepdims=True)


overflowing = shifted(lambda z: 0)


def in_columns(z, labels):
    p = softmax(z)
    p[:, labels] -= 1
    return p / len(z)


def at_the_label(z, labels):
    return one_hot(z, labels) * (softmax(z) - 1) / len(z)


def squared(z, labels):
    """The gradient of the mean of |p - y|^2, back through the softmax."""
    p = softmax(z)
    dp = 2 * (p - one_hot(z, labels)) / len(z)
    return p * (dp - (dp * p).sum(axis=1, keepdims=True))


def logits():
    draw = np.random.default_rng(10)
    return [(np.array([[1., 0, -1], [0, 2, 0]]), np.array([2, 1])),
            (draw.standard_normal((5, 4)), np.array([3, 0, 1, 1, 2])),
            (np.array([[1000., 0, -400], [-900, -1000, -800]]), np.array([1, 0]))]


LOSS_DZ = Exercise(
    "9.2", "loss_dz",
    "The gradient of the loss with respect to the logits z (N, classes). The loss is the mean "
    "over the N pictures of -ln p of the right class, and p is the softmax of z. labels (N,) are "
    "integers. Logits may be as large as 1000, or as small as -1000.",
    reference_dz, logits(),
    {"the 1/N of the mean is missing: this is the gradient of the sum over the pictures":
     lambda z, labels: softmax(z) - one_hot(z, labels),
     "it is divided by N twice. The mean is in the loss, and so in its gradient once":
     lambda z, labels: (softmax(z) - one_hot(z, labels)) / len(z) ** 2,
     "it is divided by the number of classes as well: the mean is over the pictures alone":
     lambda z, labels: (softmax(z) - one_hot(z, labels)) / z.size,
     "it is divided by the number of classes instead of the number of pictures":
     lambda z, labels: (softmax(z) - one_hot(z, labels)) / z.shape[1],
     "the sign is turned: y - p climbs, it makes p of the right class smaller when it is "
     "subtracted. (The program of 2012 has this sign, and adds)":
     lambda z, labels: (one_hot(z, labels) - softmax(z)) / len(z),
     "a factor 2 has come in, as in squared errors. The derivative of a logarithm has none":
     lambda z, labels: 2 * (softmax(z) - one_hot(z, labels)) / len(z),
     "that is the gradient of squared errors behind a softmax. The loss is a logarithm": squared,
     "only the logit of the right class gets a gradient. The others are in the sum below the "
     "line": at_the_label,
     "the right class is not subtracted: those are the probabilities alone":
     lambda z, labels: softmax(z) / len(z),
     "there is no softmax: the logits themselves are compared with the label":
     lambda z, labels: (z - one_hot(z, labels)) / len(z),
     "the softmax runs over the pictures. The probabilities of one picture sum to 1":
     lambda z, labels: (softmax(z, axis=0) - one_hot(z, labels)) / len(z),
     "the powers are divided by their sum over the whole batch. The probabilities of one picture "
     "sum to 1": shifted(largest_of_each, total=None),
     "the softmax runs over all logits of the batch: one largest, one sum. Each picture has "
     "probabilities of its own, which sum to 1": shifted(np.max, total=None),
     "1 is subtracted in the columns of all labels, in every row: `[:, labels]` takes each "
     "picture with each label. A picture has one": in_columns,
     "the largest logit of the whole batch is subtracted from all. In a picture whose own are far "
     "below it every power becomes 0, and 0 / 0 is no number: each picture has a largest of its "
     "own": shifted(np.max),
     "the largest logit of each class is subtracted. That changes by how much the logits of one "
     "picture differ; with one number for a whole picture they would differ as before":
     shifted(lambda z: z.max(axis=0)),
     "e to the power of 1000 is inf, and inf / inf is no number. (At -1000 it is 0 / 0.) Subtract "
     "the largest logit of each picture first": overflowing,
     "e to the power of 1000 is inf, and inf / inf is no number. And the sum runs over the whole "
     "batch, not over a picture": shifted(lambda z: 0, total=None),
     "e to the power of 1000 is inf, and inf / inf is no number. And the 1/N is missing":
     lambda z, labels: overflowing(z, labels) * len(z)},
    hint="The probabilities first. Then one number of each row changes, that of the label: "
         "`np.arange(N)` and `labels` find them all at once.")


FIRST_LOSS = Question(
    "9.3",
    "A net for 1,000 classes has just been given its first weights, which are so small that all "
    "logits of a picture are nearly equal. What is its loss? (Two decimals will do.)",
    float(np.log(1000)),
    {"that is how many classes there are. The loss is a logarithm of a probability": 1000,
     "that is the probability of the right class. The loss is its -ln": 0.001,
     "that is the logarithm to base 10. The loss has the natural one": 3,
     "that is the logarithm to base 2. The loss has the natural one": float(np.log2(1000)),
     "the sign is missing: ln of a number below 1 is negative, the loss is not":
     -float(np.log(1000)),
     "a loss of 0 is that of a net which is sure, and right": 0,
     "this is for 10 classes": float(np.log(10))},
    tolerance=0.002)

EXERCISES = [DROPOUT, LOSS_DZ, FIRST_LOSS]
