"""Why the wrong ones tempt: for the sides of AlexNet and windows of 3, rounding up and down agree
(55, 27, 13, 6). Only windows of 2 on an odd side show who rounds."""
import math


def pooled_side(side, size, stride, ceil):
    steps = (side - size) / stride                     # from the first window to the last
    return (math.ceil(steps) if ceil else math.floor(steps)) + 1
