"""Figure 2, line by line."""
from exercise import Exercise, Question

PARAMETERS = Question(
    "12.1",
    "How many parameters has the net of Figure 2, weights and biases of both towers together?",
    60_965_224,
    {"that is one row, in which the kernels of conv2, conv4 and conv5 see all maps of the layer "
     "below. In the figure they see those of their own tower": 62_378_344,
     "those are the weights alone. Each kernel and each neuron has a bias as well": 60_954_656,
     "that is one row without flatten. In Keras fc6 then stands at each of the 36 places of pool5 "
     "and sees 256 numbers, not all of them": 25_678_184,
     "that is right but for flatten: fc6 sees all 6 x 6 x 256 numbers of pool5": 24_265_064,
     "that net has 54 places on a side after conv1, so 5 x 5 at the end, and one row: it is a "
     "textbook's": 50_844_008,
     "54 places on a side after conv1 leave 5 x 5 for fc6. The figure has 55": 49_430_888,
     "that is torchvision's: one row, with 64, 192, 384, 256 and 256 kernels": 61_100_840,
     "in conv3, too, each kernel sees one tower here. Before layer 3 the towers exchange their "
     "maps": 60_965_224 - 384 * 9 * 128,
     "that is one tower, half of it. The net has two": 30_482_612,
     "that is what the paper says, rounded. A count of the table is wanted": 60_000_000,
     "those are the multiply-adds of a picture": 724_406_816},
    hint="A kernel has a weight for each number in its window: side · side · maps that it sees. "
         "Do conv1 first: 96 kernels of 11 · 11 · 3, and 96 biases, are 34,944.")


FIGURE = [("conv1", 11, 4), ("pool1", 3, 2), ("conv2", 5, 1), ("pool2", 3, 2),
          ("conv3", 3, 1), ("conv4", 3, 1), ("conv5", 3, 1), ("pool5", 3, 2)]
OTHER = [("conv1", 3, 2), ("pool1", 2, 2), ("conv2", 7, 1), ("conv3", 5, 3), ("pool3", 3, 3)]


def receptive_field(layers, name, grow=lambda size, stride, jump: (size - 1) * jump,
                    use=lambda name: True, first=1, beyond=0):
    """One window of `name` reaches so many pixels of the picture. The rest: ways to be wrong."""
    field, jump = first, 1
    names = [layer for layer, _, _ in layers]
    for layer, size, stride in layers[:names.index(name) + 1 + beyond]:
        if use(layer):
            field += grow(size, stride, jump)
            jump *= stride
    return field


def last_stride(layers, name):
    field, jump = 1, 1
    for layer, size, stride in layers:
        field += (size - 1) * jump
        if layer == name:
            return field
        jump = stride


def recursion(layers, name, first=0):
    """Of a field of pixels in a map, that in the map below it. It has to begin at `name`."""
    names, field = [layer for layer, _, _ in layers], 1
    for _, size, stride in layers[first:names.index(name) + 1]:
        field = (field - 1) * stride + size
    return field


FIELD = Exercise(
    "12.2", "receptive_field",
    "How many pixels of the picture, along one side, does a unit of layer `name` depend on? "
    "layers: (name, window, stride) from the picture on. Nothing but arithmetic: the picture is "
    "as large as you like.",
    lambda layers, name: receptive_field(layers, name),
    [([("conv1", 5, 2), ("conv2", 3, 1)], "conv2"), (FIGURE, "conv5"), (FIGURE, "pool2"),
     (OTHER, "conv3"), (OTHER, "pool1"), (OTHER, "conv1")],
    {"the strides are missing: after a stride, one step in a map is several pixels in the "
     "picture": lambda layers, name: receptive_field(layers, name, lambda size, s, jump: size - 1),
     "the pools are missing. They have windows and strides as well":
     lambda layers, name: receptive_field(layers, name, use=lambda layer: layer[:4] != "pool"
                                          or layer == name),
     "of the pools only the strides are missing, or only their windows: both count":
     lambda layers, name: receptive_field(
         [(layer, size, 1 if layer[:4] == "pool" else stride) for layer, size, stride in layers],
         name),
     "a layer's own stride counts for its own window. It spreads the windows of the layers above, "
     "not this one": lambda layers, name: receptive_field(
         layers, name, lambda size, stride, jump: (size - 1) * jump * stride),
     "windows of n places lie n - 1 jumps apart, from first to last. Here it is n":
     lambda layers, name: receptive_field(layers, name, lambda size, s, jump: size * jump),
     "the unit itself is missing: without any layer the field is 1 pixel":
     lambda layers, name: receptive_field(layers, name, first=0),
     "it has one layer too many: that is the field of the layer after `name`":
     lambda layers, name: receptive_field(layers, name, beyond=1),
     "it goes on to the last layer, whatever `name` is": lambda layers, name: receptive_field(
         layers, layers[-1][0]),
     "the distance of two neighbours is the stride of the last layer alone. The strides of all "
     "layers below it are in it, too": last_stride,
     "this recursion goes down from `name` to the picture. Here it was begun at the picture, so "
     "each stride spreads the windows below it, not those above": recursion,
     "it is the field of what `name` reads: its own window is missing":
     lambda layers, name: receptive_field(layers, name, beyond=-1)},
    hint="Keep two numbers as you go up: the field so far, and how many pixels apart two "
         "neighbours of this map are. They begin with 1 and 1.")


CROPS = Question(
    "12.3",
    "From a picture of 256 x 256 the net is shown a square of 227 x 227, cut out anywhere, and "
    "perhaps mirrored. How many different views of the picture are there?",
    1800,
    {"that is the paper's number, 32 · 32 · 2. It fits neither 224 nor 227": 2048,
     "that is right for squares of 224, which have 33 places in each direction": 2178,
     "those are the places. Each is seen as it is and mirrored": 900,
     "29 is the distance from the first place to the last. The places are one more": 1682,
     "29 is the distance from the first place to the last, and each place is seen mirrored as "
     "well": 841,
     "that is one direction. The square moves down as well as across": 60,
     "those are only the places in one direction": 30},
    hint="Where may the first column of the square be?")

EXERCISES = [PARAMETERS, FIELD, CROPS]
