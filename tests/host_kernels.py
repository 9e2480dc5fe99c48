"""How can a kernel of tinynet/kernels.py be tried on a machine without a GPU?

A kernel is C but for a few words. So g++ compiles the same text, and one thread runs after the
other: the same numbers, as long as no thread reads what another one writes. A text is compiled
once for all processes of the tests. The shapes, macros for the GPU's compiler, are variables here.

In a process that was started with the variables of `sanitized`, the address sanitizer reports
every access beyond an array.
"""
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess

import numpy as np

from once import once

COMPILER = shutil.which("g++")
WHY_NOT = "no g++ here: kernels cannot be run without a GPU"
TYPES = {"float*": np.float32, "float4*": np.float32, "uchar*": np.uint8, "ushort*": np.uint16,
         "int*": np.int32, "uint*": np.uint32, "float": np.float32, "uint": np.uint32}
sanitize = "TINYNET_SANITIZE" in os.environ

HOST = r"""
extern "C" float sqrtf(float), powf(float, float);        // all that is needed of <cmath>
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }
struct dim3 { unsigned x = 1, y = 1, z = 1; };
static thread_local dim3 blockIdx, blockDim, threadIdx;    // ranks may be threads of a test
struct alignas(16) float4 { float x, y, z, w; };
#define __global__
#define __device__
#define __restrict__
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)(((unsigned long long)a * b) >> 32);
}
"""
RUN = r"""
extern "C" void run(const double* macros, void** args, unsigned blocks, unsigned threads) {
    %s
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
            %s(%s);
}
"""


class HostKernel:
    """What cupy.RawKernel(code, name) is, for arrays of NumPy: kernel((blocks,), (threads,),
    arguments). An argument that the kernel would read wrongly raises TypeError."""

    def __init__(self, code, name):
        parts = re.split(r"^#define (\w+) (-?[0-9.e-]+f?)\n", code, flags=re.MULTILINE)
        self.name, names, values = name, parts[1::3], parts[2::3]
        text = "".join(parts[::3])
        self.macros = np.array([float(value.rstrip("f")) for value in values])
        kinds = tuple("float" if value.endswith("f") else "int" for value in values)
        parameters = re.search(rf"void {name}\((.*?)\)", text, re.DOTALL)[1].split(",")
        self.types = [re.sub(r"\b(const|__restrict__|\w+$)\s*", "", parameter.strip()).strip()
                      for parameter in parameters]
        self.reads = ["const" in parameter for parameter in parameters]
        self.run = compiled(text, name, tuple(names), kinds, tuple(self.types))

    def written(self, args):
        """Those of the arguments that the kernel may write to."""
        return [x for x, reads in zip(args, self.reads, strict=False) if not reads]

    def __call__(self, grid, block, args):
        if len(args) != len(self.types):
            raise TypeError(f"{self.name}: {len(args)} arguments for {self.types}")
        pointers = (ctypes.c_void_p * len(args))()
        for i, (x, kind) in enumerate(zip(args, self.types, strict=True)):
            is_array = kind.endswith("*")
            if getattr(x, "dtype", None) != TYPES[kind] or isinstance(x, np.generic) == is_array:
                raise TypeError(f"{self.name}: argument {i} is {type(x)} of "
                                f"{getattr(x, 'dtype', '')}, and {kind} in its text")
            if is_array and (not x.flags.c_contiguous or "4" in kind and x.ctypes.data % 16):
                raise TypeError(f"{self.name}: argument {i} is not contiguous and aligned")
            held = x if is_array else np.array(x)      # alive until the call
            args = (*args[:i], held, *args[i + 1:])
            pointers[i] = held.ctypes.data
        self.run(self.macros.ctypes.data_as(ctypes.c_void_p), pointers, *grid, *block)


@functools.cache
def compiled(text, name, macros, kinds, types):
    """The C function `run` of a kernel's text."""
    declared = "".join(f"static thread_local {kind} {macro};\n"
                       for macro, kind in zip(macros, kinds, strict=True))
    taken = " ".join(f"{macro} = macros[{i}];" for i, macro in enumerate(macros))
    passed = ", ".join(f"({kind})args[{i}]" if kind.endswith("*") else f"*({kind}*)args[{i}]"
                       for i, kind in enumerate(types))
    source = HOST + declared + text + RUN % (taken, name, passed)
    checks = ["-fsanitize=address", "-fsanitize-recover=address"] if sanitize else []
    words = [COMPILER, "-std=c++17", "-O2", "-ffp-contract=off", "-w", "-shared", "-fPIC", *checks,
             "-x", "c++", "-", "-o"]
    of = hashlib.sha256("\n".join([*words, source]).encode()).hexdigest()
    # The compiler itself need not run under the sanitizer, where it takes twice as long.
    plain = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    library = once(f"{name}-{of}.so", lambda path: subprocess.run(
        [*words, path], input=source, text=True, check=True, env=plain))
    run = ctypes.CDLL(library).run
    run.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    run.restype = None
    return run


def sanitized(reports):
    """The variables of a process in which kernels run under the address sanitizer. It goes on
    after a report, and writes it to the file `reports`, with the process's number behind."""
    library = subprocess.run([COMPILER, "-print-file-name=libasan.so"], capture_output=True,
                             text=True, check=True).stdout.strip()
    return dict(LD_PRELOAD=library, PYTHONMALLOC="malloc", TINYNET_SANITIZE="1",
                ASAN_OPTIONS=f"detect_leaks=0:halt_on_error=0:log_path={reports}")
