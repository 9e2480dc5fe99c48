"""Why the wrong ones tempt: alpha has one name and two meanings, and with 1e-4 and small numbers
no output shows which it is."""


def torch_arguments(n, k, alpha, beta):
    return n, alpha * n, beta, k                       # its alpha / size is our alpha
