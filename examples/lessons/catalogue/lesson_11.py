"""One code, two libraries, two devices."""
from dataclasses import dataclass

import numpy as np

from exercise import Exercise, Question, matched


class Placed(np.ndarray):
    """An array that knows on which device it lies. As in CuPy, arrays on two devices do not
    mix."""

    place = None

    def __array_finalize__(self, source):
        self.place = getattr(source, "place", None)

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return put(getattr(ufunc, method)(*plain(inputs), **options), only_place(inputs))

    def __array_function__(self, function, types, inputs, options):
        return put(function(*plain(inputs), **options), only_place(inputs))

    def __repr__(self):
        return f"{self.tolist()} on {self.place}"


@dataclass(frozen=True)
class Place:
    """A device: its name, and `put`, which copies an array to it."""

    name: str

    def __repr__(self):
        return self.name

    def put(self, array):
        return put(np.array(array), self.name)


def put(array, place):
    """An array as one of this device, or all arrays of a list."""
    if isinstance(array, (tuple, list)):
        return [put(part, place) for part in array]
    array = np.asarray(array).view(Placed)
    array.place = place
    return array


def plain(inputs):
    """Arguments, and what is in their tuples and lists, as plain arrays."""
    if isinstance(inputs, (tuple, list)):
        return [plain(x) for x in inputs]
    return np.asarray(inputs) if isinstance(inputs, Placed) else inputs


def only_place(inputs):
    """The device on which all arrays among the arguments lie."""
    places = sorted(places_of(inputs))
    if len(places) > 1:
        raise ValueError(f"arrays on {' and '.join(places)}: bring them together with put")
    return places[0]


def places_of(inputs):
    if isinstance(inputs, (tuple, list)):
        return set().union(*map(places_of, inputs))
    return {inputs.place} if isinstance(inputs, Placed) else set()


class OnDevices(Exercise):
    """An exercise in which it counts on which device the results lie."""

    def agree(self, answers, others):
        return super().agree(answers, others) and self.places(answers) == self.places(others)

    def difference(self, answers, wanted):
        if super().agree(answers, wanted):
            return (f"the numbers are right, but y, dtop and dbottom lie on "
                    f"{self.places(answers)[0]}, not on {self.places(wanted)[0]}")
        return super().difference(answers, wanted)

    def places(self, answers):
        return [", ".join(getattr(array, "place", None) or "no device" for array, _ in
                          matched(results, results)) for results in answers]


HOME, AWAY = Place("home"), Place("away")


def cases():
    draw = np.random.default_rng(11)
    for count, C, O in (2, 3, 2), (5, 2, 4):
        arrays = (draw.integers(-9, 10, (count, width)).astype(float) for width in (C, O, C + O))
        top, bottom, dy = arrays
        yield HOME.put(top), AWAY.put(bottom), HOME.put(dy), HOME, AWAY


def gather(top, bottom, dy, home, away):
    C = top.shape[1]
    y = np.concatenate([top, home.put(bottom)], axis=1)
    return y, dy[:, :C], away.put(dy[:, C:])


def bottom_first(top, bottom, dy, home, away):
    C = bottom.shape[1]
    y = np.concatenate([home.put(bottom), top], axis=1)
    return y, dy[:, C:], away.put(dy[:, :C])


def halves_swapped(top, bottom, dy, home, away):
    y, *_ = gather(top, bottom, dy, home, away)
    return y, dy[:, bottom.shape[1]:], away.put(dy[:, :bottom.shape[1]])


def cut_in_the_middle(top, bottom, dy, home, away):
    y, *_ = gather(top, bottom, dy, home, away)
    half = dy.shape[1] // 2
    return y, dy[:, :half], away.put(dy[:, half:])


def all_of_dy(top, bottom, dy, home, away):
    y, *_ = gather(top, bottom, dy, home, away)
    return y, dy, away.put(dy)


def left_over_there(top, bottom, dy, home, away):
    y, dtop, dbottom = gather(top, bottom, dy, home, away)
    return y, dtop, home.put(dbottom)


def on_the_wrong_device(top, bottom, dy, home, away):
    y, dtop, dbottom = gather(top, bottom, dy, home, away)
    return away.put(y), dtop, dbottom


def everything_away(top, bottom, dy, home, away):
    return tuple(map(away.put, gather(top, bottom, dy, home, away)))


GATHER = OnDevices(
    "11.1", "gather",
    "Bring two halves together. `top` (N, C) lies on the device `home`, `bottom` (N, D) on the "
    "device `away`, and dy (N, C + D), the gradient for the result, on home. Return y, dtop and "
    "dbottom: y is both side by side, top first, on home; each gradient lies where its input "
    "lies. device.put(array) copies an array to a device. Arrays on two devices do not mix.",
    gather, list(cases()),
    {"both inputs get all of dy. Each has made a part of y, and gets the gradient of that part":
     all_of_dy,
     "the bottom half comes first. The layer behind expects the channels of top first, and has "
     "learned its weights in that order": bottom_first,
     "y is right, but the gradients are taken from the wrong ends of dy: top's part comes first "
     "there too": halves_swapped,
     "dy is cut in the middle. The halves need not be equal: top has C columns":
     cut_in_the_middle,
     "the gradient of bottom was left on home. The layer that made bottom is away, and so are its "
     "weights": left_over_there,
     "y lies on the wrong device: the next layer is at home": on_the_wrong_device,
     "all results were sent away. Only what belongs to bottom lives there": everything_away},
    hint="The number of columns of top tells where to cut dy. Two copies are made in all: one "
         "before the join, one on the way back.")

BYTES = Question(
    "11.2",
    "The net of recipe `quickstart` has a quarter of the width. Before conv3 each tower sends its "
    "13 x 13 x 32 numbers to the other one, in float32. How many bytes is that in all for a batch "
    "of 32 pictures, forward only?",
    1_384_448,
    {"that is one direction. Both towers send": 692_224,
     "that is for one picture": 43_264,
     "that is twice as much: either 8 bytes for each number, which is float64, or the gradients "
     "that come back are counted too": 2_768_896,
     "these are numbers, not bytes": 346_112,
     "these are the maps of conv2 before its pool, 27 x 27. It is the pooled maps that cross":
     5_971_968},
    hint="numbers of a tower, times two towers, times pictures, times bytes.")

SUM = Question(
    "11.3",
    "Two towers exchange: left = [top, bottom] on one device, right = [top, bottom] on the other. "
    "The gradient for left is 1 everywhere, that for right is 10 everywhere. What is the gradient "
    "for each number of top?",
    11,
    {"that is only what comes from its own tower. top was copied, and the copy has a gradient "
     "too": 1,
     "that is only what comes back from the other tower": 10,
     "it is not the mean: a number used twice gets the sum": 5.5,
     "there are two uses, not four: left and right hold top once each": 22})

EXERCISES = [GATHER, BYTES, SUM]
