"""Why the wrong ones tempt: at a constant rate the form with the rate outside walks the same
path, and at v = 0 one step of it is the same. Decay without rate is what L2 with a rate of one
would be."""


def step(w, v, dw, rate):
    v = 0.9 * v - 0.0005 * rate * w - rate * dw
    return w + v, v
