"""Why the wrong ones tempt: logits are what the net says, and their mean is one line. While all
views are about as sure, both means choose the same class."""
import numpy as np


def say_together(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = powers / powers.sum(axis=-1, keepdims=True)    # of each view
    return probabilities.mean(axis=1)
