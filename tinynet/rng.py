"""Where do random numbers come from, if two devices and a restart must see the same ones?

From counting. Philox (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy
as 1, 2, 3") is a function from a counter to random bits. So a dropout mask or a crop is a
function of (seed, what it is for, step, index): there is no state to save, and it does not
matter which device, worker or restarted run asks first.
"""
import operator

import numpy as np

# What a number is for: the top byte of the key. A new use gets a new line.
DROPOUT = 1        # step: training step, stream: which layer, index: element / 4
ORDER = 2          # step: epoch, index: picture
CROP = 3           # step: epoch, index: picture, or group of them; words: top, left, flip
COLOUR = 4         # step: epoch, index: picture; words: one Gaussian each
PACKING = 5        # index: picture, as its source lists them; where it is packed
SQUARE = 6         # step: epoch, index: picture; words: area, top, left

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
LOW = 0xFFFFFFFF


def philox(counter, key):
    """Philox4x32-10: four words of counter, two of key, four of output.

    A word is an array of uint64, so that a 32 x 32 bit product keeps its high half, or a
    Python integer, which stays on the host: as an array it would be a copy to the GPU.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0 = c0 * MULTIPLIERS[0]
        product1 = c2 * MULTIPLIERS[1]
        c0, c1 = (product1 >> 32) ^ c1 ^ k0, product1 & LOW
        c2, c3 = (product0 >> 32) ^ c3 ^ k1, product0 & LOW
        k0 = (k0 + WEYL[0]) & LOW
        k1 = (k1 + WEYL[1]) & LOW
    return c0, c1, c2, c3


def words(xp, index, *, seed, purpose, step=0, stream=0):
    """Four random integers below 2**32 for every number in `index`: (len(index), 4) uint64.

    seed: below 2**56. step: which training step or epoch. stream: tells apart what shares
    a purpose and a step, such as two dropout layers.
    """
    counter, key = counter_and_key(seed=seed, purpose=purpose, step=step, stream=stream)
    counter = xp.asarray(index, dtype=xp.uint64), *counter
    return xp.stack(philox(counter, key), axis=1)      # three rounds make each word an array


def counter_and_key(*, seed, purpose, step=0, stream=0):
    """The words that are the same for every index: three of the counter, two of the key."""
    seed, step = operator.index(seed), operator.index(step)    # a NumPy number has 64 bits or 32
    return (step & LOW, step >> 32, stream), (seed & LOW, (seed >> 32) ^ (purpose << 24))


def mask(xp, count, keep, **of):
    """`count` booleans, each True with probability `keep`. Options as for `words`."""
    blocks = xp.arange(-(-count // 4), dtype=xp.uint64)
    return words(xp, blocks, **of).reshape(-1)[:count] < int(keep * 2 ** 32)


def mask_of_columns(xp, rows, width, columns, keep, **of):
    """The same for a matrix of this width, but only some of its columns (a slice)."""
    if width % 4 or columns.start % 4 or columns.stop % 4:
        return mask(xp, rows * width, keep, **of).reshape(rows, width)[:, columns]
    blocks = (xp.arange(rows, dtype=xp.uint64)[:, None] * (width // 4)
              + xp.arange(columns.start // 4, columns.stop // 4, dtype=xp.uint64))
    return words(xp, blocks.ravel(), **of).reshape(rows, -1) < int(keep * 2 ** 32)


def permutation(count, **of):
    """The numbers 0 ... count - 1 in random order (NumPy, on the host)."""
    high, low, _, _ = words(np, np.arange(count), **of).T
    return np.argsort((high << 32) | low, kind="stable")


def uniform(integers):
    """Random words as float64 in [0, 1)."""
    return integers / 2.0 ** 32


def normal(integers):
    """Random words (n, 4) as four Gaussian numbers a row, by Box and Muller (NumPy)."""
    u, v = uniform(integers[:, 0::2]), uniform(integers[:, 1::2])
    radius = np.sqrt(-2.0 * np.log(1.0 - u))           # 1 - u is never 0
    angle = 2.0 * np.pi * v
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def gaussian_weights(shape, *, std, seed, name):
    """First weights: float32 from a zero-mean Gaussian, a function of (seed, name).

    NumPy's own generator draws them, not `words`: 60 million, once, always on the host.
    """
    sequence = np.random.SeedSequence([seed, *name.encode()])
    generator = np.random.Generator(np.random.Philox(sequence))
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(std)
