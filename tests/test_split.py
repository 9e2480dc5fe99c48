"""Two devices compute what one does, and talk only where Figure 2 says so."""
import numpy as np
import pytest

from helpers import IMAGES, LABELS, grouped_conv2d, net
from tinynet import ops
from tinynet.device import Device, devices, to_host
from tinynet.engine import Tensor, graph
from tinynet.optim import SGD
from tinynet.split import copy_to, exchange, gather, send_to_both
from tinynet.tools.anatomy import crossings, layer_table


def losses_and_net(places, steps=3):
    model = net(places)
    optimizer = SGD(model.parameters(), lr=0.01)
    losses = []
    for step in range(steps):
        model.train(step)
        loss = ops.softmax_cross_entropy(model(Tensor(IMAGES, places[0])), labels=LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model


def test_two_cpu_devices_equal_one_to_the_bit():
    one, model_on_one = losses_and_net(devices("cpu,cpu"))
    two, model_on_two = losses_and_net(devices("cpu0,cpu1"))
    assert one == two and len(set(one)) == 3
    for (name, w), (_, v) in zip(model_on_one.parameters(), model_on_two.parameters(),
                                 strict=True):
        assert np.array_equal(w.data, v.data), name
        assert np.array_equal(w.grad, v.grad), name


def test_two_devices_equal_the_cpu_to_rounding(pair):
    expected, _ = losses_and_net(devices("cpu,cpu"))
    losses, _ = losses_and_net(pair)
    assert losses == pytest.approx(expected, rel=1e-4)


def test_there_are_seven_crossings_where_the_figure_has_them(pair):
    output = net(pair)(Tensor(IMAGES, pair[0]))
    top, bottom = (str(device) for device in pair)
    n, c2, c5, f6, f7 = 9, 8, 8, 16, 16
    assert [(c.layer, c.source, c.target, c.bytes) for c in crossings(output)] == [
        ("conv3", bottom, top, n * 3 * 3 * c2 * 4), ("conv3", top, bottom, n * 3 * 3 * c2 * 4),
        ("fc6", bottom, top, n * c5 * 4), ("fc6", top, bottom, n * c5 * 4),
        ("fc7", bottom, top, n * f6 * 4), ("fc7", top, bottom, n * f6 * 4),
        ("fc8", bottom, top, n * f7 * 4)]


def test_the_layer_table_counts_what_crosses_once():
    bytes_of = []
    for places in "cpu,cpu", "cpu0,cpu1":
        output = net(devices(places))(Tensor(IMAGES, places.partition(",")[0]))
        bytes_of.append(sum(row["bytes"] for row in layer_table(output).values()))
    assert bytes_of[1] - bytes_of[0] == sum(crossing.bytes for crossing in crossings(output))


def test_nothing_crosses_on_one_device(place):
    device = Device(place)
    output = net((device, device))(Tensor(IMAGES, device))
    assert crossings(output) == []
    assert not [t for t in graph(output) if t.op == "copy_to"]


def test_every_tower_stays_on_its_device_with_its_gradients(pair):
    _, model = losses_and_net(pair, steps=1)
    for name, w in model.parameters():
        home = pair[1] if name.startswith("bottom.") else pair[0]
        assert w.device == home, name
        assert w.grad is not None, name
        if home.is_gpu:
            assert w.data.device == w.grad.device == home.cuda, name


def test_the_towers_equal_one_net_with_grouped_convolutions():
    """The usual one-device form of AlexNet, with groups of 2, as an oracle for conv1-conv3."""
    model = net(devices("cpu0,cpu1"))
    top, bottom = model.top, model.bottom

    def merged(name, groups):
        one, other = (getattr(tower, name)[0] for tower in (top, bottom))
        W = np.concatenate([one.W.data, other.W.data], axis=3)
        b = np.concatenate([one.b.data, other.b.data])
        return lambda x: grouped_conv2d(x, Tensor(W), Tensor(b), groups, stride=one.stride,
                                        pad=one.pad)

    image = Tensor(IMAGES)
    maps = merged("conv1", 1)(image)              # both towers see the whole image
    t, b = send_to_both(image, *model.devices)
    t, b = top.conv1[0](t), bottom.conv1[0](b)
    assert gather(t, b).numpy() == pytest.approx(maps.numpy(), abs=1e-4)
    maps = merged("conv2", 2)(maps)               # each kernel sees its own half
    t, b = top.conv2[0](t), bottom.conv2[0](b)
    assert gather(t, b).numpy() == pytest.approx(maps.numpy(), abs=1e-3)
    maps = merged("conv3", 1)(maps)               # each kernel sees everything
    t, b = exchange(t, b)
    t, b = top.conv3[0](t), bottom.conv3[0](b)
    assert gather(t, b).numpy() == pytest.approx(maps.numpy(), abs=1e-3, rel=1e-4)


def test_exchange_gives_both_towers_the_same_order(pair):
    top, bottom = Tensor([[1.0, 2.0]], pair[0]), Tensor([[3.0, 4.0]], pair[1])
    for tensor, home in zip(exchange(top, bottom), pair, strict=True):
        assert tensor.device == home
        assert tensor.numpy().tolist() == [[1, 2, 3, 4]]


def test_gradients_of_an_exchange_come_home(pair):
    top = Tensor(np.array([[1.0, 2.0]]), pair[0], requires_grad=True)
    bottom = Tensor(np.array([[3.0, 4.0]]), pair[1], requires_grad=True)
    left, right = exchange(top, bottom)
    seen_by_top = left @ Tensor(np.array([[1.0], [10], [100], [1000]]), pair[0])
    seen_by_bottom = right @ Tensor(np.array([[2.0], [20], [200], [2000]]), pair[1])
    (seen_by_top + copy_to(seen_by_bottom, pair[0])).backward()
    assert to_host(top.grad).tolist() == [[3, 30]]
    assert to_host(bottom.grad).tolist() == [[300, 3000]]
