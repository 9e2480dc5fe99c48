"""Paper, program, today."""
import numpy as np

from exercise import Exercise, Question

LRN = Exercise(
    "17.1", "torch_arguments",
    "tinynet's `lrn` has alpha on the plain sum of squares. PyTorch's LocalResponseNorm(size, "
    "alpha, beta, k) divides its alpha by the size. Which four arguments, in PyTorch's order, "
    "make it the same as lrn(n=n, k=k, alpha=alpha, beta=beta)?",
    lambda n, k, alpha, beta: (n, alpha * n, beta, k),
    [(5, 2.0, 1e-4, 0.75), (3, 1.5, 0.2, 0.5), (9, 1.0, 0.03, 0.9)],
    {"alpha is handed over as it is. PyTorch divides it by n once more, and the neighbours count "
     "too little": lambda n, k, alpha, beta: (n, alpha, beta, k),
     "alpha is divided by n. That is what PyTorch does itself, so n is in it twice":
     lambda n, k, alpha, beta: (n, alpha / n, beta, k),
     "alpha is right, but k and beta have changed places: PyTorch's order is size, alpha, beta, k":
     lambda n, k, alpha, beta: (n, alpha * n, k, beta),
     "these are tinynet's arguments in tinynet's order": lambda n, k, alpha, beta:
     (n, k, alpha, beta),
     "n was halved. PyTorch's size is the whole window, TensorFlow's depth_radius its half":
     lambda n, k, alpha, beta: (n // 2, alpha * n, beta, k),
     "alpha times 5, which is right for n = 5 alone": lambda n, k, alpha, beta:
     (n, alpha * 5, beta, k)},
    tolerance=1e-9,
    hint="PyTorch has k + alpha / size * sum, tinynet has k + alpha * sum.")

VELOCITY = Exercise(
    "17.2", "torch_buffer",
    "A run of tinynet goes on in PyTorch. tinynet has w += v, with the rate inside v. PyTorch has "
    "w -= rate * b. Of the velocity v, and the rate with which it was made, make PyTorch's buffer "
    "b.",
    lambda v, rate: -v / rate,
    [(np.array([0.5, -1.5, 0.25]), 0.25), (np.array([-0.003, 0.02]), 0.01)],
    {"the sign: v is added to w, and rate * b is taken away": lambda v, rate: v / rate,
     "the rate is in it twice. v has it already, and b must not have it":
     lambda v, rate: -v * rate,
     "v as it is: too small by the rate, and of the wrong sign": lambda v, rate: v.copy(),
     "the sign is right, but the rate is still inside": lambda v, rate: -v,
     "one step of momentum too much: b of now is wanted, not what is left of it in the next step":
     lambda v, rate: -0.9 * v / rate},
    hint="The next step is w + v here and w - rate * b there. Let them be equal.")

DROPOUT = Exercise(
    "17.3", "without_halving",
    "A net was trained with classic dropout: outputs x are kept with probability `keep`, and at "
    "test time x * keep goes into y = x W + b. Another program does nothing at test time. Which "
    "W and b does it need to compute the same?",
    lambda W, b, keep: (W * keep, b.copy()),
    [(np.array([[1.0, -2, 3], [4, 0.5, -6]]), np.array([1.0, 2, 3]), 0.8),
     (np.array([[2.0], [1], [-3]]), np.array([0.5]), 0.3)],
    {"it divides. That is for the other direction, or for weights that inverted dropout trained":
     lambda W, b, keep: (W / keep, b.copy()),
     "it multiplies by the probability to drop. With 0.5 nobody sees it":
     lambda W, b, keep: (W * (1 - keep), b.copy()),
     "b is scaled too. It is added after x W, and dropout does not touch it":
     lambda W, b, keep: (W * keep, b * keep),
     "nothing was changed: the outputs come in 1 / keep times too large":
     lambda W, b, keep: (W.copy(), b.copy()),
     "only b was scaled. It is the one that stays": lambda W, b, keep: (W.copy(), b * keep)},
    hint="(x * keep) W is x times something.")

WHICH_RECIPE = Question(
    "17.4",
    "From a log: an epoch has 5,005 steps of 1,281,167 pictures in all; after epoch 20 the rate "
    "falls from 0.01 to 0.001, and the biases learn at 0.02 before and 0.002 after. Is the recipe "
    "paper, 2012, or caffe?",
    "caffe",
    {"in the paper a batch is 128, which makes 10,010 steps; biases learn as fast as weights; and "
     "the rate waits for the validation error": "paper",
     "in the program of 2012 biases do learn twice as fast. But a batch is 128, which makes "
     "10,010 steps; the rate falls after epoch 25, and that of the biases not at all": "2012"},
    hint="How large is a batch? The table of the lesson has batch_size, schedule and bias_lr.")

EXERCISES = [LRN, VELOCITY, DROPOUT, WHICH_RECIPE]
