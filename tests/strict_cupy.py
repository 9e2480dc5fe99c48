"""How can the GPU path be trusted on a machine without a GPU?

By running it on a stand-in for CuPy. It computes with NumPy, but it guards its arrays as jealously
as several cards guard theirs, and some things that CuPy forgives it refuses as well:

- NumPy arrays among its operands, and NumPy functions on its arrays (`Mixed`);
- operands that live on another device than the current one (`WrongDevice`);
- names and arguments that CuPy does not have (`NotInCuPy`, cupy_names.py);
- float64 that nobody asked for (`Doubled`);
- copies between devices, and results of a matrix product, that are not contiguous (`Strided`).

Every copy is noted in `copies`; so is every wait of the host for a device (`.get()`, `float(x)`,
`if x:`). Memory that was never written reads as NaN. What it cannot show: the rounding of a GPU,
its memory layout where that differs from NumPy's, and speed. Kernels are compiled by g++
(host_kernels.py); copies in streams of their own are late, and who uses what must be in an order
(strict_streams.py).
"""
import ctypes
import functools
import operator
import weakref
from types import SimpleNamespace

import numpy as np

import strict_streams
from cupy_names import check, listed
from host_kernels import HostKernel
from strict_streams import (
    Device,
    Event,
    Memory,
    Refused,
    Stream,
    WrongDevice,
    copies,
    current,
    note,
    null_of,
    recorded,
)
from strict_streams import here as _here

DEVICES = 2
DOUBLE = np.dtype("float64")
MODULES = "linalg", "lib", "lib.stride_tricks"

memories = {}                                          # Memory, by the id of who owns it
memory = weakref.WeakValueDictionary()                 # arrays that were pointed to, by place


class Mixed(Refused, TypeError):
    pass


class Doubled(Refused, TypeError):
    pass


class Strided(Refused, ValueError):
    pass


def forget():
    """Begin anew, for another test."""
    for each in copies, memories:
        each.clear()
    strict_streams.forget()


# --- what NumPy computes with, and what the reader sees -----------------------------------


def _run(function, args, kwargs):
    """function(*args, **kwargs) on the numbers inside, if a GPU would do that."""
    operands = []
    opened_args, opened_kwargs = _opened(args, operands), _opened(kwargs, operands)
    here = _here()
    for x in operands:
        if x._home != here:
            raise WrongDevice(f"{function.__name__}: an operand on {x._home}, while the current "
                              f"device is {here}")
    null, jobs = null_of(here), recorded()
    known = {id(_base(x._numbers)) for x in operands}
    written = [*getattr(function, "written", ()), kwargs.get("out")]
    if function.__name__ in ("setitem", "at", "set", "fill"):
        written += operands[:1]

    def ask():
        null.begin()
        for x in operands:
            _memory(x).use(null, writes=any(x is y for y in written))
        return function(*opened_args, **opened_kwargs)

    result = ask()
    floats = {x.dtype for x in operands if x.dtype.kind == "f"}
    may_double = (DOUBLE in floats or kwargs.get("dtype") is not None
                  or any(isinstance(a, (type, np.dtype)) and DOUBLE == a for a in args)
                  or not floats and any(isinstance(a, np.float64) for a in args))
    closed = _closed(result, here, operands, may_double)
    results = closed if isinstance(closed, (list, tuple)) else [closed]
    for x in results:
        if any(x is y for y in operands):              # in place
            _memory(x).use(null, writes=True)
        elif isinstance(x, ndarray) and id(_base(x._numbers)) not in known:
            memories[id(_base(x._numbers))] = Memory(here, null.count)
            if jobs is not None:
                strict_streams.fresh(x._numbers)
    if jobs is not None:
        jobs.append(lambda: _into(results, ask()))
    return closed


def _into(results, numbers):
    """What was asked for again goes to where it went before."""
    for x, new in zip(results, numbers if isinstance(numbers, (list, tuple)) else [numbers],
                      strict=True):
        if isinstance(x, ndarray):
            x._numbers[...] = new


def _memory(x):
    return memories.setdefault(id(_base(x._numbers)), Memory(x._home, 0))


def _base(numbers):
    """The array that owns the memory of a view."""
    while isinstance(numbers.base, np.ndarray):
        numbers = numbers.base
    return numbers


def _opened(value, operands):
    if isinstance(value, ndarray):
        operands.append(value)
        return value._numbers
    if isinstance(value, np.ndarray) and value.ndim:
        raise Mixed(f"a NumPy array of shape {value.shape} among arrays of a GPU")
    if isinstance(value, (list, tuple)):
        return type(value)(_opened(v, operands) for v in value)
    if isinstance(value, dict):
        return {key: _opened(v, operands) for key, v in value.items()}
    return value


def _closed(result, home, operands=(), may_double=True):
    if isinstance(result, (list, tuple)):
        return type(result)(_closed(r, home, operands, may_double) for r in result)
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    for x in operands:
        if result is x._numbers:                       # out=, or an operator in place
            return x
    if result.dtype == DOUBLE and not may_double:
        raise Doubled("a float64 result of operands that are none")
    return _array(np.asarray(result), home)            # a sum is an array of no dimensions


def _array(numbers, home):
    x = object.__new__(ndarray)
    x._numbers, x._home = numbers, home
    return x


def empty_poisoned(like, *args, **kwargs):
    numbers = (np.empty_like if isinstance(like, np.ndarray) else np.empty)(like, *args, **kwargs)
    return strict_streams.poisoned(numbers)


class Function:
    """A function (or a module) of NumPy, under the name and with the arguments of CuPy's."""

    def __init__(self, path, function):
        self._path, self._function = path, function

    def __call__(self, *args, **kwargs):
        check(self._path, args, kwargs)
        for parts in args:                             # stack([x, 1.0])
            if isinstance(parts, list) and len({isinstance(p, ndarray) for p in parts}) > 1:
                raise Mixed(f"{self._path}: numbers of the host in a list of arrays of a GPU")
        out = kwargs.get("out")
        if self._path in ("matmul", "dot") and recorded() is not None:
            raise NotImplementedError("CuPy asks cuBLAS for nothing while a stream records")
        if self._path in ("matmul", "dot") and out is not None and not out.flags.c_contiguous:
            raise Strided(f"{self._path}: out must be contiguous")
        return _run(empty_poisoned if "empty" in self._path else self._function, args, kwargs)

    def __getattr__(self, name):
        if isinstance(self._function, np.ufunc):       # add.at, add.reduce
            method = Function(listed(f"ufunc.{name}"), getattr(np.ufunc, name))
            return functools.partial(method, self._function)
        path = f"{self._path}.{name}".removeprefix("cupy.")
        found = getattr(self._function, name, None)
        if path in MODULES:
            return Function(path, found)
        listed(path)
        if isinstance(found, type) or not callable(found):
            return found                               # float32, newaxis, pi
        return Function(path, found)


# --- the array --------------------------------------------------------------------------


class ndarray:
    """The array. What is not written down here is NumPy's, as far as CuPy has it too."""

    __module__ = "cupy"
    __hash__ = None
    __array_ufunc__ = None                             # np.exp(x) is refused

    def __array__(self, *args, **kwargs):
        raise Mixed("an array of a GPU does not become a NumPy array by itself; use .get()")

    def __array_function__(self, function, *args):     # so is np.sum(x)
        raise Mixed(f"np.{function.__name__} on an array of a GPU; use xp.{function.__name__}")

    @property
    def device(self):
        return Device(self._home[3:])

    @property
    def data(self):                                    # for kernels, and for NCCL
        if not self._numbers.flags.c_contiguous:
            raise Strided("a pointer to a strided array")
        return MemoryPointer(self)

    def __getattr__(self, name):
        path = listed(f"ndarray.{name}")
        member = getattr(self._numbers, name)
        if callable(member):
            return functools.partial(Function(path, getattr(np.ndarray, name)), self)
        return _closed(member, self._home)             # T, shape, flags: no work for a GPU

    def __len__(self):
        return len(self._numbers)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        return _run(operator.getitem, (self, key), {})

    def __setitem__(self, key, value):
        _run(operator.setitem, (self, key, value), {})

    def get(self, stream=None, order="C", out=None, blocking=True):
        if recorded() is not None:
            raise strict_streams.Recorded("the host waits for a number that is not computed")
        numbers = _run(np.copy, (self,), dict(order=order))._numbers
        note(self._home, "host", self.nbytes)
        if out is None:
            return numbers
        out[...] = numbers
        return out

    def set(self, arr, stream=None):
        if (type(arr), arr.shape, arr.dtype) != (np.ndarray, self.shape, self.dtype):
            raise Mixed(f"set: {self.dtype} {self.shape} from {arr.dtype} {arr.shape}")
        note("host", self._home, self.nbytes)
        if stream is None:
            def set(x):
                np.copyto(x, arr)
            return _run(set, (self,), {})
        stream.copy(lambda: np.copyto(self._numbers, arr), _memory(self), arr.ctypes.data)

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())


class MemoryPointer:
    """Where the numbers of an array are. It keeps them."""

    def __init__(self, array):
        self._array = array

    @property
    def ptr(self):
        if self._array._home != _here():
            raise WrongDevice(f"a pointer to an array of {self._array._home} on {_here()}")
        numbers = self._array._numbers
        memory[numbers.ctypes.data] = numbers
        return numbers.ctypes.data

    def copy_from_device_async(self, src, size, stream):
        """Without a stream CuPy takes that of the current device, which waits for both cards."""
        pair = target, source = self._array, src._array
        note(source._home, target._home, size)
        owners = [weakref.ref(_base(x._numbers)) for x in pair]    # who frees one, frees it
        places = [x._numbers.ctypes.data for x in pair]

        def job():
            if all(owner() is not None for owner in owners):
                ctypes.memmove(*places, size)
        for x in pair:
            weakref.finalize(_base(x._numbers), _memory(x).end).atexit = False
        stream.copy(job, *map(_memory, pair))


def _operator(function, swapped=False):
    def run(self, *other):
        return _run(function, (*other, self) if swapped else (self, *other), {})
    return run


for _name in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    _function = getattr(operator, f"__{_name}__")
    setattr(ndarray, f"__{_name}__", _operator(_function))
    setattr(ndarray, f"__r{_name}__", _operator(_function, swapped=True))
    setattr(ndarray, f"__i{_name}__", _operator(getattr(operator, f"__i{_name}__")))
for _name in "lt le eq ne gt ge neg pos abs invert".split():
    setattr(ndarray, f"__{_name}__", _operator(getattr(operator, f"__{_name}__")))
for _name in "shape dtype ndim size nbytes flags".split():             # asked for all the time
    setattr(ndarray, _name, property(operator.attrgetter(f"_numbers.{_name}")))


# --- the module -------------------------------------------------------------------------


class Cupy(Function):
    """What `import cupy` gives: NumPy's functions, and those that know of devices."""

    ndarray = ndarray
    _precisions = []                                   # as they were set
    _core = SimpleNamespace(_routines_linalg=SimpleNamespace(
        COMPUTE_TYPE_TF32="tf32", COMPUTE_TYPE_DEFAULT="fp32",
        set_compute_type=lambda dtype, kind, set=_precisions: set.append(kind),
        get_compute_type=lambda dtype, set=_precisions: set[-1] if set else "fp32"))
    cuda = SimpleNamespace(
        Device=Device, Stream=Stream, Event=Event, get_elapsed_time=strict_streams.elapsed,
        is_available=lambda: True, get_current_stream=current, using_allocator=strict_streams.own,
        Memory=bytes, MemoryPointer=lambda memory, offset: memory,
        MemoryPool=lambda allocate: SimpleNamespace(
            malloc=allocate, total_bytes=lambda: 0, free_all_blocks=lambda: None),
        device=SimpleNamespace(get_cublas_handle=lambda: _here()),
        cublas=SimpleNamespace(getVersion=lambda handle: 0),
        runtime=SimpleNamespace(getDeviceCount=lambda: DEVICES, hostUnregister=lambda place: None,
                                hostRegister=lambda *args: _here()))

    def __init__(self):
        super().__init__("cupy", np)

    def get_default_memory_pool(self):
        return SimpleNamespace(free_all_blocks=lambda: None)

    class RawKernel:
        """A kernel, run by the host."""

        def __init__(self, code, name, options=()):
            self.name, self._kernel = name, HostKernel(code, name)

        def __call__(self, grid, block, args):
            def kernel(*args):
                self._kernel(grid, block, args)
            kernel.written = self._kernel.written(args)
            _run(kernel, args, {})

    def array(self, obj, dtype=None, *, order="K"):
        """A copy on the current device: the one function that takes arrays from elsewhere."""
        here, source = _here(), "host"
        if isinstance(obj, ndarray):
            source = obj._home
            if source != here and not obj.flags.c_contiguous:
                raise Strided(f"a strided array of {source} cannot be copied to {here}")
            null_of(source).begin()
            strict_streams.both(here, source)
            _memory(obj).use(null_of(source), writes=False)
            obj = obj._numbers
        elif recorded() is not None:
            raise strict_streams.Recorded("numbers of the host")
        x = _array(np.array(obj, dtype=dtype, order=order), here)
        if recorded() is not None:
            strict_streams.fresh(x._numbers)
            recorded().append(lambda: np.copyto(x._numbers, obj))
        memories[id(_base(x._numbers))] = Memory(here, null_of(here).begin())
        note(source, here, x.nbytes)
        return x

    def asarray(self, a, dtype=None, order=None):
        if isinstance(a, ndarray):
            return _run(np.asarray, (a,), dict(dtype=dtype, order=order))
        return self.array(a, dtype, order=order or "K")

    def asnumpy(self, a):
        return a.get() if isinstance(a, ndarray) else np.asarray(a)

    def get_array_module(self, *arrays):
        return self if any(isinstance(x, ndarray) for x in arrays) else np
