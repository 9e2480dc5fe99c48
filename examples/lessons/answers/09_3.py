"""Why the wrong ones tempt: each of 1,000 classes has the probability 0.001, and that is easily
taken for the loss. In base 10 its logarithm would be a round number."""
import math

probability = 1 / 1000
answer = -math.log(probability)
