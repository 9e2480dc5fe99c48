"""What is in a net, and what crosses where?

Nothing is typed in: both are read off the graph behind the net's output.
"""
import math
from dataclasses import dataclass

import numpy as np

from ..cores import LANES
from ..engine import Parameter, Tensor, graph
from ..split import layer_of


def lines(model, batch):
    """The layer table and the crossings of a net, as lines of text.

    batch: how many images the sizes in bytes are for.
    """
    image = np.zeros((1, model.crop, model.crop, 3), np.float32)
    output = model.eval()(Tensor(image, model.devices[0]))
    table = layer_table(output)
    yield from _table_lines(table, batch)
    yield ""
    yield f"crossings of a batch of {batch}, float32; as much comes back in the backward pass:"
    found = crossings(output)
    for crossing in found:
        yield (f"  {crossing.layer:7}{crossing.source} -> {crossing.target}"
               f"{crossing.bytes * batch:>14,} bytes")
    if not found:
        yield "  none: everything is on one device"


def lines_of_ranks(model, batch):
    """What a rank of a net sends in a training step, beside data parallelism; nothing if it is
    alone."""
    ranks, size = model.ranks, model.ranks.size
    if size == 1:
        return
    rows = sent_by_rank(model, batch)
    parameters = [math.prod(w.whole_shape) for _, w in model.parameters()]
    alike = 4e-6 * 2 * (size - 1) / size * sum(parameters)
    yield ""
    neurons = f"{model.outputs[0] // size:,} of {model.outputs[0]:,} neurons of fc6"
    yield (f"one of {size} ranks: {len(ranks.lanes)} of {LANES} lanes, {batch / size:g} of "
           f"{batch} pictures, {neurons}")
    yield "MB that it sends in a step:"
    yield f"  {'':28}{'forward':>9}{'backward':>10}"
    for what, forward, backward in rows:
        yield f"  {what:28}{forward / 1e6:>9,.2f}{backward / 1e6:>10,.2f}"
    total = sum(forward + backward for _, forward, backward in rows) / 1e6
    yield f"  {'total':28}{total:>19,.2f}   (all layers split by pictures: {alike:,.1f})"


def sent_by_rank(model, batch):
    """[(what, bytes forward, bytes backward), ...] that a rank sends in a step."""
    ranks, size = model.ranks, model.ranks.size
    images = np.zeros((LANES // size, model.crop, model.crop, 3), np.float32)
    with ranks.batch([1] * LANES):
        nodes = graph(model.eval()(Tensor(images, model.devices[0])))
    rows = []
    for node in nodes:
        if node.op in WHAT:
            own = node.inputs[0].nbytes * batch / LANES
            back = node.nbytes * batch / LANES - own
            rows.append((WHAT[node.op], own * (size - 1), 0 if "class" in node.op else back))
    shared = sum(w.data.nbytes for _, w in model.parameters() if w.part is None)
    half = shared * (size - 1) / size
    return [*rows, ("gradients of the convolutions", half, half)]


WHAT = {"_every_row": "pictures, into fc6", "_every_neuron": "neurons, into the next layer",
        "_every_class": "logits"}


def _table_lines(table, batch):
    def line(name, output, kernels, parameters, macs, size):
        return f"{name:6} {output:>14} {kernels:>19} {parameters:>11} {macs:>14} {size:>10}"

    def numbers(rows):
        return (f"{sum(row['parameters'] for row in rows):,}",
                f"{sum(row['macs'] for row in rows):,}",
                f"{sum(row['bytes'] for row in rows) * batch / 1e6:,.1f}")

    yield line("layer", "output", "kernels", "parameters", "multiply-adds", f"MB at {batch}")
    for name, row in table.items():
        yield line(name, row["output"], row["kernels"], *numbers([row]))
    yield line("total", "", "", *numbers(table.values()))
    yield "multiply-adds: of one image. MB: what all ops of a layer put out, float32."


def layer_table(output):
    """{layer: row} for every layer with weights, both towers together.

    A row is a dict: output and kernels, as text ("2 x 55x55x48", "2 x 48 of 11x11x3");
    parameters; macs, the multiply-adds; bytes that its ops put out. output: what the net made
    of one image.
    """
    rows = {}
    for node, name in layers_of(output).items():
        row = rows.setdefault(name, dict(parts=0, parameters=0, macs=0, bytes=0))
        row["bytes"] += node.nbytes if node.op != "depart" else 0      # it is copy_to's
        if layer_name(node):
            _, W, b = node.inputs
            row["parts"] += 1
            row["parameters"] += W.data.size + b.data.size
            row["macs"] += math.prod(node.shape[:-1]) * W.data.size
            row["shape"], row["weights"] = node.shape[1:], W.shape
    for row in rows.values():
        parts = f"{row['parts']} x " if row["parts"] > 1 else ""
        row["output"] = parts + "x".join(str(size) for size in row["shape"])
        *seen, kernels = row["weights"]
        row["kernels"] = f"{parts}{kernels} of {'x'.join(str(size) for size in seen)}"
    return rows


@dataclass
class Crossing:
    """One copy of activations: into which layer, from where to where, how many bytes.

    seam: whether it is for an LRN whose window reaches into the other tower's maps. In the
    backward pass a gradient of the same size crosses the other way.
    """
    layer: str
    source: str
    target: str
    bytes: int
    seam: bool = False


def crossings(output):
    """The crossings in the graph behind a tensor, in the order in which they were made.

    A crossing is named after the first layer with weights that reads it. The image, which both
    devices need as well, is not listed: no gradient comes back for it, and a Loader makes it on
    both cards.
    """
    nodes = graph(output)
    reader = {}
    for node in nodes:
        for x in node.inputs:
            reader.setdefault(x, node)
    found = []
    for node in nodes:
        if node.op == "copy_to":
            way = [node]                   # up to the first layer with weights
            while not layer_name(way[-1]) and way[-1] in reader:
                way.append(reader[way[-1]])
            found.append(Crossing(
                layer_name(way[-1]), str(node.inputs[0].device), str(node.device), node.nbytes,
                seam="lrn" in [step.op for step in way]))
    return found


def layer_name(node):
    """ "conv3" for an op that reads top.conv3.0.W or bottom.conv3.0.W, else ""."""
    for x in node.inputs:
        if isinstance(x, Parameter):
            return layer_of(x.name)
    return ""


def layers_of(output):
    """{node: name of its layer} for every op behind a tensor, in the order of their making.

    An op belongs to the last layer with weights on its way.
    """
    names = {}
    for node in graph(output):
        if node.inputs:                               # else a parameter, or the image
            names[node] = layer_name(node) or names[node.inputs[0]]
    return names
