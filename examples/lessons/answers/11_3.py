"""Why the wrong ones tempt: a copy looks like mere transport, so one of the two gradients seems to
be the other one, brought over. But top is used twice, on two devices, so it gets the sum."""
from_left, from_right = 1, 10
answer = from_left + from_right
