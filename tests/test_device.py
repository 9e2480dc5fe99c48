"""Device strings, moving arrays, and work spread over cores."""
import copy
import os
import pickle
import platform
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tinynet import cores
from tinynet import device as dev
from tinynet.device import Device
from tinynet.errors import UserError


@pytest.fixture
def threads():
    """set_threads, put back to what it was."""
    before = cores._threads
    yield cores.set_threads
    cores.set_threads(before)


@pytest.mark.parametrize("name", ["cpu", "cpu0", "cpu1", "cpu17", "cpu:a", "cpu0:b"])
def test_the_cpu_may_pretend_to_be_several_devices(name):
    device = Device(name)
    assert str(device) == name and device.xp is np
    assert device == Device(name) and device != Device("cpu2")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:0", "cpu 0", "GPU0", "tpu0", "gpu0:",
                                  "cpu-1", "gpu0:a:b", "cpu0\n", "gpu00", "cpu٣"])
def test_a_name_that_cannot_be_read_is_refused_with_those_that_can(name):
    with pytest.raises(UserError, match="gpu0:a and gpu0:b"):
        Device(name)


def test_a_gpu_that_is_not_there_is_refused_with_what_is():
    with pytest.raises(UserError, match="gpu99: .*use"):
        Device("gpu99")


def test_without_cupy_it_says_how_a_checkout_gets_it(monkeypatch):
    """By name it would be fetched from PyPI, where `tinynet` is another package."""
    monkeypatch.setitem(sys.modules, "cupy", None)         # `import cupy` fails
    with pytest.raises(UserError, match="gpu0: GPUs need CuPy") as error:
        Device("gpu0")
    assert '\n  pip install -e ".[gpu-cuda13]"' in str(error.value)
    assert "tinynet[" not in str(error.value)


def test_a_device_is_of_the_kind_that_its_name_says(place):
    device = Device(place)
    kind = dev.Gpu if place.startswith("gpu") else dev.Cpu
    assert type(device) is kind and device.is_gpu == (kind is dev.Gpu)
    assert kind(place) == device


def test_a_kind_refuses_the_names_of_another():
    for kind, name in (dev.Cpu, "gpu0"), (dev.Gpu, "cpu"):
        with pytest.raises(UserError, match="is no device"):
            kind(name)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy,
                                   lambda device: pickle.loads(pickle.dumps(device))])
def test_a_copy_of_a_device_is_that_device(place, again):
    device = Device(place)
    other = again(device)
    assert other == device and hash(other) == hash(device) and type(other) is type(device)
    assert np.array_equal(dev.to_host(other.put(np.arange(3))), [0, 1, 2])


def test_a_device_that_arrives_in_another_process_is_set_up_there():
    script = ("import pickle; from threadpoolctl import threadpool_info; "
              f"pickle.loads({pickle.dumps(Device('cpu1'))!r}); "
              "print({i['num_threads'] for i in threadpool_info() if i['user_api'] == 'blas'})")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() in ("{1}", "set()"), done.stderr


@pytest.mark.parametrize("most, expected", [(1, "gpu0"), (2, "gpu0,gpu1"), (3, "gpu0,gpu1")])
def test_the_default_is_as_many_gpus_as_the_net_can_use(gpus, most, expected):
    assert dev.default_devices(most) == expected


def test_a_list_of_devices_is_read_in_order():
    assert dev.devices("cpu1, cpu0") == [Device("cpu1"), Device("cpu0")]


def test_put_copies_and_makes_contiguous(place):
    device = Device(place)
    source = np.arange(24.0).reshape(4, 6)[:, ::2]
    there = device.put(source)
    assert np.array_equal(dev.to_host(there), source)
    assert there.flags.c_contiguous
    source[...] = 0
    assert dev.to_host(there).sum() > 0


def test_put_takes_a_strided_array_from_the_other_device(pair):
    one, other = pair
    with one:
        strided = one.put(np.arange(24.0).reshape(4, 6))[:, 1:4]
    there = other.put(strided)
    assert there.flags.c_contiguous
    assert np.array_equal(dev.to_host(there), np.arange(24.0).reshape(4, 6)[:, 1:4])


def test_put_keeps_a_single_number_as_it_is(pair):
    one, other = pair
    there = other.put(one.put(np.array(2.5)))          # of it CuPy's ascontiguousarray makes a row
    assert there.shape == () and dev.to_host(there) == 2.5


def plus_one(x):
    return cores.over_batch(lambda x, y: np.add(x, 1, out=y), x, out=np.empty_like(x))


def rows_of_slices(x, **how):
    rows = []
    cores.over_batch(lambda x: rows.append(len(x)), out=x, **how)
    return rows


def test_over_batch_is_the_function_itself():
    def f(x, y, z):
        z[...] = x * y + 1

    x, y = np.random.default_rng(0).standard_normal((2, 1000, 50, 3))
    assert np.array_equal(cores.over_batch(f, x, y, out=np.empty_like(x)), x * y + 1)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 1000])
def test_over_batch_takes_any_number_of_rows(count):
    x = np.arange(count * 20_000, dtype=float).reshape(count, 20_000)
    assert np.array_equal(plus_one(x), x + 1)
    assert cores.sum_over_batch(lambda x: x.sum(axis=0), x) == pytest.approx(x.sum(axis=0))


def test_over_batch_really_cuts():
    rows = rows_of_slices(np.zeros((64, 1 << 18), np.float32))
    assert sum(rows) == 64 and max(rows) == 4                 # 4.5 MB a slice


def test_a_slice_has_the_rows_that_it_needs_but_leaves_some_for_every_lane():
    x = np.zeros((64, 1 << 18), np.float32)
    rows = rows_of_slices(x, least=5)
    assert sum(rows) == 64 and max(rows) == 5
    assert rows_of_slices(x, least=50) == [8] * 8
    assert rows_of_slices(x, scratch=1 << 30, least=5) == [4] * 16       # a product: of equal ones


def test_over_batch_lets_a_function_write_into_its_rows_of_the_result():
    x = np.arange(64 << 15, dtype=np.float32).reshape(64, -1)
    y = np.empty_like(x)
    assert cores.over_batch(lambda x, y: np.add(x, 1, out=y), x, out=y) is y
    assert np.array_equal(y, x + 1)


@pytest.mark.parametrize("function", [
    lambda x: cores.sum_over_batch(lambda x: x.T @ x, x),
    lambda x: cores.over_batch(lambda x, y: np.matmul(x, x[:5].T, out=y), x,
                               out=np.empty((500, 5), np.float32)),
    lambda x: cores.matmul(x, x.T), lambda x: cores.matmul(x.T, x)])
def test_results_do_not_depend_on_the_number_of_threads(threads, function):
    x = np.random.default_rng(0).standard_normal((500, 700)).astype(np.float32)
    results = []
    for count in (1, 2, 4):
        threads(count)
        results.append(function(x))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize("shape", [(300, 20, 40), (40, 20, 300), (1, 1, 1), (0, 3, 2)])
def test_matmul_is_the_matrix_product(shape):
    n, k, m = shape
    draw = np.random.default_rng(0)
    a, b = draw.standard_normal((n, k)), draw.standard_normal((k, m))
    assert cores.matmul(a, b) == pytest.approx(a @ b)
    assert cores.matmul(b.T, a.T) == pytest.approx((a @ b).T)


@pytest.mark.parametrize("turned", [False, True])
def test_over_batch_changes_every_number_once_of_whatever_layout(turned):
    x, y = np.zeros((300, 1001)), np.ones((300, 1001))

    def add(y, x):
        x += y

    cores.over_batch(add, y.T if turned else y, out=x.T if turned else x)
    assert np.all(x == 1)


def test_work_inside_a_slice_may_be_cut_again(threads):
    threads(2)
    x = np.ones((64, 1 << 17))

    def cut_again(x, y):
        y[...] = plus_one(x)

    assert np.all(cores.over_batch(cut_again, x, out=np.empty_like(x)) == 2)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_can_compute():
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    x = np.ones((64, 1 << 17))
    plus_one(x)
    child = os.fork()
    if child == 0:
        os._exit(int(plus_one(x).sum() != 2 * x.size))
    for _ in range(100):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done and status == 0


def test_on_a_gpu_slices_follow_their_scratch(monkeypatch):
    monkeypatch.setattr(cores, "is_on_gpu", lambda array: True)
    x = np.zeros((100, 10), np.float32)
    assert len(cores._slices([x])[0]) == 1
    assert len(cores._slices([x], 0)[0]) == 1
    assert len(cores._slices([x], cores.GPU_SCRATCH // 10)[0]) == 10


def test_an_error_in_a_slice_reaches_the_caller():
    def fail(x):
        raise ZeroDivisionError("in a slice")

    with pytest.raises(ZeroDivisionError):
        cores.over_batch(fail, out=np.zeros((64, 1 << 18)))


def test_an_error_on_a_helping_thread_reaches_the_caller(threads):
    threads(4)
    caller, together = threading.get_ident(), threading.Barrier(4, timeout=30)

    def work(item):
        together.wait()                                # every thread has one of the first four
        if threading.get_ident() != caller:
            raise ZeroDivisionError("on another thread")

    with pytest.raises(ZeroDivisionError):
        cores._for_each(work, range(4), np.zeros(1))


def test_after_an_error_nothing_more_is_begun(threads):
    threads(4)
    begun, failed = [], threading.Event()

    def work(item):
        begun.append(item)
        if threading.get_ident() == caller:
            failed.set()
            raise ZeroDivisionError("in a slice")
        failed.wait(timeout=30)

    caller = threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        cores._for_each(work, range(1000), np.zeros(1))
    assert len(begun) < 500


def test_after_an_error_work_is_shared_as_before(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        cores._for_each(lambda item: 1 / 0, range(2), np.zeros(1))
    together = threading.Barrier(2, timeout=30)        # two items at once, or it breaks
    cores._for_each(lambda item: together.wait(), range(2), np.zeros(1))


def test_memory_that_was_freed_is_used_again():
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc is asked to keep freed memory")
    import resource
    Device("cpu")
    faults = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        arrays = [np.ones(3 << 18, np.float32) for _ in range(20)]       # 60 MB
        del arrays
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[-1] < 1000                                  # 15,000 pages of 4 KB


def test_a_c_library_that_takes_no_large_threshold_is_told_to_map_nothing(monkeypatch):
    """As glibc before 2.35: the refusal would leave 128 KiB, and every array a mapping."""
    def calls(accepts):
        seen = []
        library = SimpleNamespace(mallopt=lambda option, value: seen.append((option, value))
                                  or int(accepts or option != dev.THRESHOLD))
        monkeypatch.setattr(dev.ctypes, "CDLL", lambda name: library)
        monkeypatch.setattr(dev, "threadpool_limits", lambda *how, **more: True)
        monkeypatch.setattr(dev, "_blas_limit", None)
        monkeypatch.setattr(dev.sys, "platform", "linux")
        dev._set_up_cpu()
        return seen

    assert calls(accepts=True) == list(dev.MALLOC.items())
    assert (dev.MAPPINGS, 0) in calls(accepts=False)


def test_threads_must_be_at_least_one(threads):
    with pytest.raises(ValueError, match="at least 1"):
        threads(0)
