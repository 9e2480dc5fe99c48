"""Fewer multiplications."""
import numpy as np

from exercise import Exercise, Question


class Number:
    """A number that remembers of which products it is made: those of two such numbers. A product
    with a plain number, such as a half, is none."""

    def __init__(self, value, products=frozenset()):
        self.value, self.products = value, products

    def __add__(self, other):
        value, products = opened(other)
        return Number(self.value + value, self.products | products)

    def __mul__(self, other):
        value, products = opened(other)
        own = {object()} if isinstance(other, Number) else set()
        return Number(self.value * value, self.products | products | own)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + other * -1

    def __rsub__(self, other):
        return other + self * -1

    def __truediv__(self, other):
        return self * (1 / other)

    def __eq__(self, other):
        return self.value == opened(other)[0]

    def __hash__(self):
        return hash(self.value)

    def __float__(self):
        return float(self.value)

    def __repr__(self):
        return f"{self.value:g}"


def opened(x):
    return (x.value, x.products) if isinstance(x, Number) else (x, frozenset())


def numbers(*values):
    return np.array([Number(value) for value in values])


class Counted(Exercise):
    """An exercise in which it counts how many products the results are made of."""

    def agree(self, answers, others):
        return super().agree(*map(in_floats, (answers, others))) and (
            products(answers) == products(others))

    def difference(self, answers, wanted):
        if super().agree(*map(in_floats, (answers, wanted))):
            return (f"the numbers are right, but they took {products(answers)[0]} products, not "
                    f"{products(wanted)[0]}")
        return super().difference(*map(in_floats, (answers, wanted)))


def in_floats(answers):
    return [[float(opened(x)[0]) for x in np.ravel(results)] for results in answers]


def products(answers):
    """Of how many products the numbers of each answer are made."""
    return [len(frozenset().union(*(opened(x)[1] for x in np.ravel(results))))
            for results in answers]


def four(d, g, sums=(0.5, 0.5), signs=(1, -1, 1)):
    p0 = (d[0] - d[2]) * g[0]
    p1 = (d[1] + d[2]) * ((g[0] + g[1] + g[2]) * sums[0])
    p2 = (d[2] - d[1]) * ((g[0] - g[1] + g[2]) * sums[1])
    p3 = (d[3] - d[1]) * g[2]
    return [p0 + p1 + p2, p1 * signs[0] + p2 * signs[1] + p3 * signs[2]]


def six(d, g):
    return [d[i] * g[0] + d[i + 1] * g[1] + d[i + 2] * g[2] for i in range(2)]


TWO_OUTPUTS = Counted(
    "w.1", "two_outputs",
    "Of four pixels d and three weights g, compute the list of the two outputs of the "
    "convolution, [d0 g0 + d1 g1 + d2 g2, d1 g0 + d2 g1 + d3 g2], with four products. The checker "
    "counts every product of two numbers that come from d or g; sums, and products with a plain "
    "number such as 0.5, are free.",
    lambda d, g: four(d, g),
    [(numbers(1, 2, 3, 4), numbers(2, -1, 3)), (numbers(5, -2, 7, 3), numbers(4, 6, -8))],
    {"the numbers are right, but each product is made as it stands: there are six": six,
     "the kernel is mirrored. In a net no kernel is":
     lambda d, g: four(d, g[::-1]),
     "a half is missing: with both sums of weights made as they are, what they share counts "
     "twice": lambda d, g: four(d, g, sums=(1, 1)),
     "the second output has the wrong sign at the product with g2 alone":
     lambda d, g: four(d, g, signs=(1, -1, -1)),
     "the two products in the middle are added in both outputs. In one of them they are "
     "subtracted: that is how g1 goes with d1 here and with d2 there":
     lambda d, g: four(d, g, signs=(1, 1, 1))},
    hint="Two of the four products are (d1 + d2) (g0 + g1 + g2) / 2 and (d2 - d1) (g0 - g1 + g2) "
         "/ 2. Write out their sum and their difference. What is missing in each output?")

TILE = Question(
    "w.2",
    "A tile makes 5 x 5 outputs of a kernel of 3 x 3. With how many products?",
    49,
    {"that is the direct way: nine for each of 25 outputs": 225,
     "that is one dimension, twice. Columns and then rows: the numbers multiply": 14,
     "5 + 3 points are one too many: the product of polynomials of 5 and of 3 coefficients has 7":
     64,
     "these are seven points in one direction, and five outputs in the other. Both directions "
     "need seven": 35,
     "there are as many outputs, but an output is not known from one product": 25},
    hint="How many coefficients has the product of two polynomials with 5 and with 3 of them?")

SPOILED = Question(
    "w.3",
    "In one dimension, tiles of 6 pixels make 4 outputs each, of a kernel of three. The tiles "
    "begin at pixels 0, 4, 8 and so on. Pixel 9 is NaN. How many outputs are NaN?",
    8,
    {"so many it would be without tiles: the outputs whose window holds the pixel": 3,
     "that is one tile. But tiles overlap: which of them hold pixel 9?": 4,
     "outputs are counted, not pixels: a tile of 6 pixels makes 4 outputs": 12,
     "that is one tile, and its pixels instead of its outputs": 6},
    hint="The tile that begins at pixel 4 holds pixels 4 to 9.")

EXERCISES = [TWO_OUTPUTS, TILE, SPOILED]
