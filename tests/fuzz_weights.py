"""Weights of other programs: damaged anywhere, or made by somebody who means harm.

What must be refused is what would run a command, or take memory. Flipped bits among the numbers
are seen nowhere but in a zip, so a damaged file may go either way, but in a clean one.
"""
from damaged_weights import KINDS, harmful, spoilt
from fuzzing import EITHER, REFUSED, one


def weights(base, rng, folder):
    path = folder / "net"
    if rng.random() < 0.2:
        harm = harmful("../canary/run")
        what, expected = one(rng, harm), REFUSED
        path.write_bytes(harm[what])
    else:
        what, expected = one(rng, KINDS), EITHER
        path.write_bytes(spoilt(what, KINDS[what](), rng))
    return what, expected, base.alexnet("import", path, "out.npz")
