"""Why the wrong ones tempt: 2,048 is printed in the paper, and 256 - 224 is 32. But a square
of 224 may begin at pixel 0 and at pixel 32, so there are 33 places."""
places = 256 - 227 + 1
answer = places * places * 2
