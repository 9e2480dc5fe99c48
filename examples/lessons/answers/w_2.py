"""Why the wrong ones tempt: points, outputs and weights are nearly equal numbers. Points are one
fewer than outputs and weights together, and in two dimensions they are squared."""
points = 5 + 3 - 1
answer = points * points
