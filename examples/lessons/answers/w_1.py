"""Why the wrong ones tempt: signs and halves can be put in several places, and a kernel which is
its own mirror image hides half of the slips. Two odd kernels and counted products tell."""


def two_outputs(d, g):
    both = (d[1] + d[2]) * ((g[0] + g[1] + g[2]) / 2)
    turned = (d[2] - d[1]) * ((g[0] - g[1] + g[2]) / 2)
    # both + turned = d1 g1 + d2 (g0 + g2): the first output has d2 g2 and d0 g0
    # both - turned = d2 g1 + d1 (g0 + g2): the second output has d1 g0 and d3 g2
    first = (d[0] - d[2]) * g[0]
    last = (d[3] - d[1]) * g[2]
    return [both + turned + first, both - turned + last]
