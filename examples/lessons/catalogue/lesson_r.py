"""Many machines."""
import numpy as np

from exercise import Exercise, Question


def tree(parts):
    while len(parts) > 1:
        parts = [parts[i] + parts[i + 1] for i in range(0, len(parts), 2)]
    return parts[0]


def in_order(parts):
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def folded(parts):
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [parts[i] + parts[half + i] for i in range(half)]
    return parts[0]


def from_outside(parts):
    while len(parts) > 1:
        parts = [parts[i] + parts[-1 - i] for i in range(len(parts) // 2)]
    return parts[0]


DRAW = np.random.default_rng(1)
TREE = Exercise(
    "r.1", "tree",
    "Add up a list of two, four or eight arrays of float32 as a tree: neighbours first, then "
    "neighbouring sums, and so on. Every bit counts.",
    tree,
    [(list(DRAW.standard_normal((n, 50)).astype(np.float32)),) for n in (2, 4, 8)],
    {"that is one after the other: a rank with the last four arrays cannot add them alone":
     in_order,
     "that adds the first half to the second half: lane 0 meets lane 4, and they are on different "
     "ranks": folded,
     "that begins with the first and the last: neighbours are to meet first": from_outside,
     "that is the sum of float64, rounded at the end. Ranks would have to send twice the bytes":
     lambda parts: np.sum(parts, axis=0, dtype=np.float64).astype(np.float32)},
    tolerance=0.0,
    hint="As long as there are several, make a list that is half as long: the sums of parts 0 and "
         "1, of parts 2 and 3, and so on.")

BYTES = Question(
    "r.2",
    "Every one of four ranks has the whole gradient, of 100 MB, of its own pictures. Each rank is "
    "to add up a quarter of it, and hands the sum of this quarter to all others. How many MB does "
    "a rank send in all?",
    150,
    {"that is the first half: the sums of the quarters have to be sent as well": 75,
     "its own quarter a rank need not send to itself, neither before the sum nor after it": 200,
     "that is the whole gradient to each of the others: three times what it needs, and then every "
     "rank adds up all of it": 300,
     "so much would one rank alone have to send back, if it added up everything for all": 400},
    hint="Before: a quarter to each of three others. After: its own quarter, summed, to each of "
         "three others.")

MEANS = Question(
    "r.3",
    "Two ranks share a batch of four pictures: rank 0 has three, whose mean loss is 1, rank 1 has "
    "one, whose loss is 3. What is the loss of the batch?",
    1.5,
    {"that is the mean of the means, in which the picture of rank 1 counts three times": 2,
     "that is the sum of the means": 4,
     "that is the sum over all four pictures: divide it by their number": 6,
     "that is the sum over all pictures, divided by the number of ranks": 3},
    hint="The sum of the losses of rank 0 is three times its mean.")

EXERCISES = [TREE, BYTES, MEANS]
