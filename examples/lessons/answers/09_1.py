"""Why the wrong ones tempt: today's libraries have the inverted form, and at the paper's p = 0.5
the share that is dropped and the share that is kept are the same number."""


def dropout(x, mask, p, training):
    if training:
        return x * mask                                # what is kept is kept whole
    return x * (1 - p)                                 # all are there, each counts as much
