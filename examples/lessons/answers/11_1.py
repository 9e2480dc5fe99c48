"""Why the wrong ones tempt: on one device nothing shows where an array lies, and with equal halves
a cut in the middle is right. On two cards the next sum fails, or is copied behind your back."""
import numpy as np


def gather(top, bottom, dy, home, away):
    C = top.shape[1]
    y = np.concatenate([top, home.put(bottom)], axis=1)
    dtop = dy[:, :C]                                   # home already
    dbottom = away.put(dy[:, C:])                      # back to where bottom was made
    return y, dtop, dbottom
