"""A net that learns."""
import numpy as np

from exercise import Exercise, Question
from tinynet import SGD, Conv2D, Dense, Flatten, MaxPool, ReLU, Sequential, Tensor, ops
from tinynet.pictures import patterns


def in_float64(net):
    """The net with first weights of seed 0, in float64: then it does not matter in which order
    an answer adds."""
    for _, w in net.initialize(seed=0).parameters():
        w.data = w.data.astype(np.float64)
    return net


def small_net():
    return in_float64(Sequential(Dense(2, 3)))


def picture_net():
    return in_float64(Sequential(Conv2D(3, 8, 7, stride=4, std=0.05), ReLU(), MaxPool(3, 2),
                                 Flatten(), Dense(72, 4, std=0.01)))


def eight_pictures():
    """Two of each of the lesson's classes."""
    seen = np.stack([patterns.picture(name, number, size=32) for number in range(2)
                     for name in ("horizontal", "vertical", "diagonal", "dots")])
    return (seen - 100) / 50, np.arange(8) % 4


POINTS = np.array([[1.0, 0.5], [-0.5, 1.0], [0.0, -1.5], [2.0, 1.0]])
CASES = [(small_net, POINTS, np.array([0, 1, 2, 0]), 0.5, 3),
         (picture_net, *eight_pictures(), 0.03, 100)]


def train(make_net, x, labels, rate, steps, momentum=0.0, decay=0.0, learns="Wb", zero=True,
          times=1):
    """Gradient descent and, with other options, its mistakes."""
    net, losses = make_net(), []
    optimizer = SGD([(name, w) for name, w in net.parameters() if name[-1] in learns],
                    rate, momentum, decay)
    for _ in range(steps):
        loss = ops.softmax_cross_entropy(net(Tensor(x)), labels=labels) * times
        if zero:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def one_late(make_net, x, labels, rate, steps):
    return train(make_net, x, labels, rate, steps + 1)[1:]


class Numbers(Exercise):
    """An exercise whose result is a list of numbers, not of tensors."""

    def remark(self, answers):
        if any(isinstance(loss, Tensor) for losses in answers for loss in losses):
            return ("the losses are right, but they are Tensors, and numbers were asked for. Here "
                    "backward has freed what each of them kept. Where nobody calls it, such a "
                    "list holds every graph: the trap of lesson 4")
        return None


TRAIN = Numbers(
    "10.1", "train",
    "Let a net learn a batch by heart. make_net() gives a net of tinynet with its first weights. "
    "Take `steps` steps of plain gradient descent, each with all of x (N, ...) and labels (N,), "
    "and return a list of their losses, each as it was before its step. (Of eight pictures, in "
    "the second case, a hundred steps take the loss below 0.01.)",
    lambda make_net, x, labels, rate, steps: train(make_net, x, labels, rate, steps),
    CASES,
    {"the gradients are never set back, so each step goes along the sum of all gradients so far. "
     "backward adds": lambda *a: train(*a, zero=False),
     "it goes uphill: the gradient points to where the loss grows":
     lambda make_net, x, labels, rate, steps: train(make_net, x, labels, -rate, steps),
     "every loss is the one after the step, so the first of all is missing": one_late,
     "the loss is the same in every step, so no step reaches the net that it is measured with. Is "
     "a new net made within the loop, or the gradient set to None before the step?":
     lambda make_net, x, labels, rate, steps: train(make_net, x, labels, 0, steps),
     "it moves with momentum and weight decay. They are the paper's, and on by default in SGD, "
     "but gradient descent has neither": lambda *a: train(*a, momentum=0.9, decay=0.0005),
     "it moves with momentum, which gradient descent does not have (SGD has it by default)":
     lambda *a: train(*a, momentum=0.9),
     "the weights decay as well, which they do not in gradient descent (in SGD they do by "
     "default)": lambda *a: train(*a, decay=0.0005),
     "only the weights W learn. The biases b are parameters too":
     lambda *a: train(*a, learns="W"),
     "the loss is the sum over the batch, not the mean, and so the steps are N times too long":
     lambda make_net, x, labels, rate, steps: train(make_net, x, labels, rate, steps,
                                                    times=len(x))},
    tolerance=1e-6,
    hint="net.parameters() gives pairs (name, w). A step is w.data -= rate * w.grad, and "
         "loss.item() is the loss as a number.")

FAULTS = Question(
    "10.2",
    "The lesson's loop was run three times, each time with one fault. Run 1: the loss falls for "
    "some epochs, then halts near 0.9; two of the four classes are never answered. Run 2: the "
    "loss falls faster than in the lesson for some twenty steps, then jumps back to ln 4 and "
    "stays. Run 3: the loss stays near ln 4 and creeps down only after many epochs, while of the "
    "new pictures three quarters remain wrong. The faults: (a) gradients are not set to None; (b) "
    "a ReLU behind the last layer; (c) labels are shuffled, pictures are not. Answer with three "
    "letters, for runs 1, 2 and 3.",
    "bac",
    {"run 3 is right. But sums of old gradients cannot keep two classes silent, while a logit "
     "that is cut off at zero can": "abc",
     "run 1 is right. Now think which fault makes steps too long, and which leaves nothing to be "
     "learned but by heart": "bca",
     "run 2 is right. With wrong labels the net could not learn two of the classes and miss the "
     "other two: there is nothing that any class has in common": "cab",
     "none is right. Wrong labels leave nothing to be learned that holds for new pictures: in "
     "which run are new pictures never right?": "acb",
     "none is right. Gradients that add up make longer and longer steps: in which run does it "
     "begin faster than it should?": "cba"},
    hint="Ask of each fault: what is the gradient of a logit below zero? How long is the "
         "twentieth step, if it is made of twenty gradients? What do two pictures of one class "
         "still have in common?")

STEPS = Question(
    "10.3",
    "The paper trains for 90 epochs, on 1.2 million pictures, in batches of 128. How many steps "
    "does it take?",
    843_750,
    {"that is one epoch": 9_375,
     "that is how many pictures are seen, one after the other. A step learns from 128 of them":
     108_000_000,
     "that is the number of pictures. A step learns from 128 of them": 1_200_000,
     "that is how often a step would be taken if a batch were all pictures": 90})

EXERCISES = [TRAIN, FAULTS, STEPS]
