"""Why the wrong ones tempt: each of those totals is right for a net that is called AlexNet.
Whoever counts 256 kernels of 5 x 5 x 96 in conv2 has overlooked the rows, and whoever reads a
total in a framework counts the framework's net."""
kernels = {"conv1": (11 * 11 * 3, 96), "conv2": (5 * 5 * 48, 256),     # its own tower's 48
           "conv3": (3 * 3 * 256, 384),                                # both towers' 128
           "conv4": (3 * 3 * 192, 384), "conv5": (3 * 3 * 192, 256),
           "fc6": (6 * 6 * 256, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)}
answer = sum((inputs + 1) * outputs for inputs, outputs in kernels.values())
