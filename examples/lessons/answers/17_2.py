"""Why the wrong ones tempt: both are called momentum, and a run that goes on with a wrong buffer
recovers after some dozens of steps, so nobody notices."""


def torch_buffer(v, rate):
    return -v / rate                                   # w + v = w - rate * b
