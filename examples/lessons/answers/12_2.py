"""Why the wrong ones tempt: with stride 1 everywhere, and without pools, most of these rules
agree. The stride of a layer matters one layer later than it stands in the table."""


def receptive_field(layers, name):
    field = jump = 1
    for layer, size, stride in layers:
        field += (size - 1) * jump
        if layer == name:
            return field
        jump *= stride
