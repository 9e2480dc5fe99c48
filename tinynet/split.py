"""Where do activations change device? Here, and nowhere else.

The paper's two GPUs talk to each other "only in certain layers" (section 3.2). A crossing of
lines in its Figure 2 is an `exchange` in the code; where the rows end in one layer it is a
`gather`. With both towers on one device the same calls copy nothing.
"""
from dataclasses import dataclass

from .engine import Parameter, copy_to, graph
from .ops import concat


def send_to_both(image, top, bottom):
    """The input, on both devices: each GPU of the paper sees every image."""
    return copy_to(image, top), copy_to(image, bottom)


def exchange(top, bottom):
    """Give each tower both halves, in the same order: top's maps, then bottom's."""
    return (concat(top, copy_to(bottom, top.device)),
            concat(copy_to(top, bottom.device), bottom))


def gather(top, bottom):
    """Both halves on the top tower's device."""
    return concat(top, copy_to(bottom, top.device))


@dataclass
class Crossing:
    """One copy of activations: into which layer, from where to where, how many bytes.

    Backward, a gradient of the same size crosses the other way.
    """
    layer: str
    source: str
    target: str
    bytes: int


def crossings(output):
    """The crossings in the graph behind a tensor, in the order in which they were made.

    The image is copied to both devices as well, but no gradient comes back for it, and it is
    not listed. A crossing is named after the first layer with weights that reads it.
    """
    nodes = graph(output)
    reader = {}
    for node in nodes:
        for x in node.inputs:
            reader.setdefault(x, node)
    return [Crossing(_first_layer(node, reader), str(node.inputs[0].device),
                     str(node.device), node.nbytes)
            for node in nodes if node.op == "copy_to"]


def layer_name(node):
    """ "conv3" for an op that reads top.conv3.0.W or bottom.conv3.0.W, else ""."""
    for x in node.inputs:
        if isinstance(x, Parameter):
            return layer_of(x.name)
    return ""


def layer_of(name):
    """The layer of the figure that a parameter belongs to: "top.conv3.0.W" -> "conv3"."""
    return name.removeprefix("top.").removeprefix("bottom.").partition(".")[0]


def layers_of(output):
    """{node: name of its layer} for every op behind a tensor, in the order of their making:
    an op belongs to the last layer with weights on its way."""
    names = {}
    for node in graph(output):
        if node.inputs:                               # else a parameter, or the image
            names[node] = layer_name(node) or names[node.inputs[0]]
    return names


def _first_layer(node, reader):
    while not layer_name(node) and node in reader:
        node = reader[node]
    return layer_name(node)
