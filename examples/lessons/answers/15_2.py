"""Why the wrong ones tempt: the worst number of a table draws the eye, and the last layer is the
nearest to the loss. But a fault is passed on, from the first sick layer to all behind it."""

dead = dict(conv1=0, conv2=0.69, conv3=0.65, conv4=0.44, conv5=0.53, fc6=0.58, fc7=0.62)
answer = next(layer for layer, share in dead.items() if share >= 0.5)
