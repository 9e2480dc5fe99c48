"""Why the loss sits at ln(classes)."""
import math

from exercise import Exercise, Question
from tinynet.layers import Weighted


def he(shape):
    return float(Weighted(shape, "he", 0.0).W.draw.keywords["std"])


FIRST_STD = Exercise(
    "15.1", "first_std",
    "The standard deviation of first weights with which ten layers of ReLUs, or a hundred, pass "
    "on numbers of the size that came in. The shape of the weights is (inputs, outputs) in a "
    "dense layer, (KH, KW, channels, kernels) in a convolution.",
    he,
    [((400, 50),), ((3, 5, 48, 128),), ((11, 11, 3, 96),), ((9216, 4096),)],
    {"1 / n: the sum of n products grows by the root of n, for the terms are independent":
     lambda shape: 1 / math.prod(shape[:-1]),
     "the root of 1 / n keeps the size of a layer without ReLU. A ReLU takes half of the "
     "squares, so here each layer keeps 0.7 of the size, and ten of them 0.03":
     lambda shape: math.sqrt(1 / math.prod(shape[:-1])),
     "this is the variance. The standard deviation is its root":
     lambda shape: 2 / math.prod(shape[:-1]),
     "it counts the outputs. How large a sum is depends on how many inputs are added up (with the "
     "outputs it is the gradient that keeps its size on the way back)":
     lambda shape: math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1])),
     "it counts the channels alone. A kernel adds up height times width times channels products":
     lambda shape: math.sqrt(2 / shape[-2]),
     "2 over inputs and outputs together is made for tanh, a compromise between the way forward "
     "and the way back; with ReLUs the size still shrinks":
     lambda shape: math.sqrt(2 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1]))),
     "2 over the inputs and the last size of the shape together. In a dense layer that is "
     "Glorot's rule, a compromise made for tanh. (In a convolution its outputs are "
     "kernels times places of the window.) With ReLUs the size shrinks either way":
     lambda shape: math.sqrt(2 / (math.prod(shape[:-1]) + shape[-1])),
     "that is how far uniform numbers may reach from 0. Their standard deviation is smaller by "
     "the root of 3": lambda shape: math.sqrt(6 / math.prod(shape[:-1])),
     "it is 0.01 whatever the shape. That fits one number of inputs only": lambda shape: 0.01},
    hint="A sum of n products of numbers of size 1 with weights of size s has size s * sqrt(n). "
         "What does the ReLU take from the squares?")

FIRST_FAULT = Question(
    "15.2",
    "A net does not learn. The diagnosis says, from conv1 to fc8: dead units 0, 69, 65, 44, 53, "
    "58, 62 % and none in fc8, which has no ReLU; size of the outputs 89, 220, 150, 220, 280, "
    "6400, 30000, 3500000; part that depends on the picture 0.70, 0.048, 0.0072, 0.0078, 0.0052, "
    "0.0082, 0.0091, 0.017. At which layer do you begin? Answer with its name, such as conv1.",
    "conv2",
    {"that is the last layer with dead units. It gets its inputs from layers that are broken "
     "already, and tells nothing of the cause": "fc7",
     "that layer has the smallest part that depends on the picture, and conv3 has nearly as "
     "little: what comes out of a broken layer is passed on. Look for the first": "conv5",
     "that layer looks much worse than the one before it, but more than half of the units before "
     "it are dead too, so it sees little": "conv3",
     "that layer lets no less of the picture through than conv3 does, and fewer of its units are "
     "dead: it passes on what it gets": "conv4",
     "there the outputs become 20 times as large. But nearly nothing in its inputs depends on "
     "the picture: that was lost before": "fc6",
     "that layer has the largest outputs. Those of all layers grow on the way, and this one only "
     "multiplies what it gets": "fc8",
     "that layer has no dead unit, and 0.70 of its output depends on the picture: it works":
     "conv1"},
    hint="A layer cannot see what the layers before it did not let through.")

NINE_OF_TEN = Question(
    "15.3",
    "Two classes; nine of ten pictures are of the first. A net says the same of every picture, "
    "and says it as well as it can. What is its loss, to three digits?",
    -0.9 * math.log(0.9) - 0.1 * math.log(0.1),
    {"ln(2) is the loss of saying 1/2 and 1/2. This net can do better: it knows which class is "
     "frequent": math.log(2),
     "this is the loss on pictures of the frequent class alone. The loss is a mean over all "
     "pictures, and one of ten is of the other class": -math.log(0.9),
     "this is the loss on pictures of the rare class alone, which are one of ten": -math.log(0.1),
     "the logarithm to base 2 measures it in bits. The loss is taken with the natural one":
     -0.9 * math.log2(0.9) - 0.1 * math.log2(0.1),
     "this is the error, the share of pictures whose class is not the first answer": 0.1,
     "the two losses count alike here, but nine of ten pictures have the first":
     -(math.log(0.9) + math.log(0.1)) / 2},
    tolerance=0.004,
    hint="The best that can be said of every picture is how frequent each class is: 0.9 and 0.1. "
         "The loss of a picture is minus the logarithm of what was said of its class.")

EXERCISES = [FIRST_STD, FIRST_FAULT, NINE_OF_TEN]
