# %% [markdown]
# # 1. Is this gradient right?
#
# *You test any derivative with two evaluations of the function.*
#
# *Question: How do you find out that a gradient is wrong? · Opens: `tinynet/gradcheck.py`
# (`gradcheck`, `contract`) · Paper: 5 · 12 minutes*
#
# A net computes a loss from its **weights**, the numbers that training changes. For every
# weight, training asks: if the weight grows a little, by how much does the loss grow? The
# growth of the loss divided by the growth of the weight is a **slope**. Programs compute slopes
# with formulas that people have written. A wrong formula raises no error: the net learns, but
# worse. So you need a test. Start with one number, $f(x) = x^3$, at $x = 2$.

# %%
import numpy as np

from tinynet import gradcheck, norm, op
from tinynet.tools import svg

def f(x): return x * x * x

x = 2.0
for h in 1, 0.1, 0.01, 0.001:
    print(h, "gives the slope", round((f(x + h) - f(x)) / h, 6))

# %% [markdown]
# As the growth $h$ gets smaller, the slope approaches 12. The number that the slope approaches
# is the **derivative** of f at 2. The derivative has a formula, $f'(x) = 3x^2$. At 2 this
# formula gives 12, so the formula and the measurement agree. But the measurement is poor: it is
# wrong by more than $6h$. Multiply out to see why:
#
# $$(2 + h)^3 = 8 + 12h + 6h^2 + h^3$$
# $$(2 - h)^3 = 8 - 12h + 6h^2 - h^3$$
#
# Subtract the second line from the first: 8 and $6h^2$ cancel. What is left, divided by $2h$, is
# the **central difference**:
#
# $$\frac{f(x + h) - f(x - h)}{2h} = 12 + h^2$$
#
# <details><summary>Before you run: by what factor does its error fall when h becomes ten times
# smaller?</summary>By 100, because the error is h times h.</details>

# %%
# v says which way x moves: for now, up
def central(f, x, h, v=1):
    return (f(x + h * v) - f(x - h * v)) / (2 * h)

for h in 1, 0.1, 0.01, 0.001:
    print(f"h = {h:<6} error {central(f, x, h) - 12:.6f}")

# %% [markdown]
# **How small may h be?** A computer keeps about 16 digits of a number (**float64**, NumPy's
# default) or about 7 (**float32**, in which tinynet trains). The digits after these are lost.
# This loss is **rounding**. Both values of f begin with the same digits. The subtraction
# removes these digits. Only the last few digits say anything about the slope.

# %%
two, h = np.float32(2), np.float32(1e-6)
print(f"f(2 + h) = {f(two + h):.7f}   in float32")
print(f"f(2 - h) = {f(two - h):.7f}")
print(f"slope      {central(f, two, h):.7f}")

# %% [markdown]
# So there are two errors. The error of the formula falls with h. The error of rounding grows as
# h falls. Together they make a V. Here is the relative error: the distance from 12, divided by
# 12. (For steps of 0.01 and more the two lines coincide, because there only the formula is
# wrong.)

# %%
def errors(dtype, last):
    steps = [10.0 ** -k for k in range(last + 1)]
    return [(h, abs(float(central(f, dtype(2), dtype(h))) / 12 - 1))
            for h in steps]

both = {"float32": errors(np.float32, 7),
        "float64": errors(np.float64, 12)}
for name, points in both.items():
    h, error = min(points, key=lambda point: point[1])
    print(f"{name}: best step {h:g}, error {error:.0e}")
svg.curves(both, "two Vs: float32 is best at 1e-2, float64 at 1e-5",
           "step h", "relative error", "xy", marks=True)

# %% [markdown]
# At its best, float32 confirms five digits, and float64 ten. So a check is done in float64, with
# a step of 1e-5 if x is about 1. (A larger x leaves fewer digits for h in `x + h`. So the best
# step grows with x.)
#
# **Many numbers.** Let x now have three numbers, and let the loss be the sum of their cubes.
# Then there are three slopes. The array of all slopes, which has the shape of x, is the
# **gradient**. To measure the gradient, move one number at a time. The first slope is our 12.

# %%
x = np.array([2.0, -1.0, 0.5])
gradient = 3 * x ** 2

def loss(x): return f(x).sum()

measured = [central(loss, x, 1e-5, one) for one in np.eye(3)]
print(gradient, "by the formula")
print(np.round(measured, 8), "measured")
assert gradient[0] == 12 and np.allclose(gradient, measured, rtol=1e-9)

# %% [markdown]
# This measurement takes two evaluations for each number. AlexNet has 60,965,224 weights, and
# two cores evaluate it 178 times a second (README).

# %%
n = 2 * 60_965_224
print(f"{n:,} evaluations, {n / 178 / 86400:.1f} days")

# %% [markdown]
# So move all numbers at once. Move x by $h v$, where $v$ is an array with the shape of x. Each
# number adds its slope times its own move to the growth of the loss. The central difference
# then gives one number. This number must be the sum of gradient times $v$:
#
# $$\frac{f(x + hv) - f(x - hv)}{2h} \approx \sum_i \mathrm{gradient}_i \, v_i$$
#
# This takes two evaluations, however many numbers x has. Which $v$ is a good choice? Suppose
# that a wrong program exchanges the first two slopes. (A program that forgets to transpose a
# square matrix makes such a mistake.)
#
# <details><summary>Before you run: does a v of three ones find the mistake?</summary>No. The sum
# of the slopes is the same in any order. A v of random numbers weighs each slope
# differently.</details>

# %%
wrong = gradient[[1, 0, 2]]
draw = np.random.default_rng(0).standard_normal
for v in np.ones(3), draw(3):
    print(f"{central(loss, x, 1e-5, v):7.4f} measured,",
          f"{gradient @ v:.4f} right, {wrong @ v:.4f} wrong")

# %% [markdown]
# A function may also return many numbers: $x^3$ returns one for each number of x. Then multiply
# these numbers by random factors $u$ and add them up. The sum is one number, as a loss is. In
# tinynet a gradient function receives these factors as `dy`, and returns the gradient of the
# sum: for $x^3$ that is `dy * 3 * x ** 2`. Now the check is complete. It returns a relative
# error. The sum of gradient times $v$ can be nearly zero by chance. So the check divides by the
# root of the sum of the squares of its terms, which is about as large as such a sum usually is.
# If the measured value is larger, the check divides by that value instead. The wrong function
# below forgets the square.

# %%
def check(f, dx, x, step=1e-5, seed=0):
    numbers = np.random.default_rng(seed).standard_normal((2, *x.shape))
    u, v = numbers.astype(x.dtype)
    def weighed(x): return (u * f(x)).sum()
    numerical = central(weighed, x, x.dtype.type(step), v)
    shares = v * dx(x, u)
    size = max(abs(numerical), np.sqrt((shares ** 2).sum()))
    return abs(numerical - shares.sum()) / size

def right_dx(x, dy): return dy * 3 * x ** 2
def wrong_dx(x, dy): return dy * 3 * x
print(f"right {check(f, right_dx, x):.0e}",
      f"wrong {check(f, wrong_dx, x):.0e}")
assert check(f, right_dx, x) < 1e-9

# %% [markdown]
# Does tinynet do the same? In tinynet an **op** is a function that returns its value and a
# gradient function for each input (lesson 2 builds one). Give both checks the wrong gradient,
# on an array whose axes all differ in length. They must find the same error.

# %%
@op
def wrong_cube(x):
    def dx(dy): return wrong_dx(x, dy)
    return f(x), dx

big = draw((2, 3, 5))
pair = check(f, wrong_dx, big), gradcheck(wrong_cube, big)
print(*pair)
assert np.isclose(*pair)
assert gradcheck(lambda x: x ** 3, x) < 1e-9

# %% [markdown]
# **How close is close enough?** Suppose that a check gives 1e-3. Is float32 to blame? Let us
# compare. LRN is a formula of the paper (lesson 8). It divides each number by a power of a sum.
# The sum is 2 plus 1e-4 times the squares of five numbers: the number itself and four
# neighbours. The careless gradient below forgets that x also changes this divisor.

# %%
def careless_dx(x, dy): return dy * norm.plain_lrn(x) / x

small = big.astype(np.float32)
for step in 1e-6, 1e-5, 1e-2:
    error = check(f, right_dx, small, step)
    print(f"{error:.0e}  x³, right, in float32, step {step:g}")
print(f"{check(norm.plain_lrn, careless_dx, big):.0e}  LRN, careless")
print(f"{check(f, right_dx, big):.0e}  x³, right")
print(f"{gradcheck(norm.lrn, big):.0e}  LRN of tinynet, by gradcheck")

# %% [markdown]
# Some tests accept 1e-2. (The program that the paper's authors wrote in 2012 accepted 2e-2. It
# checked in float32, with the difference of $f(x + h)$ and $f(x)$. Its step was 2e-2 for the
# weights of convolutions, which are the subject of lesson 5.) Such a test accepts the careless
# LRN. And in float32 the error of a right gradient can be larger than that of a wrong one. So
# an error of 1e-3 in float32 does not prove a mistake, and does not rule one out. Repeat the
# check in float64. There a gap separates right gradients (about 1e-9 or less) from wrong ones
# (more than 1e-6). (`gradcheck` returns 0 because it first subtracts the error that rounding
# alone may have caused.)
#
# **The trap.** Some functions have a **kink**, a place where the slope jumps. ReLU, which is
# max(x, 0), has slope 0 below zero and slope 1 above. If a number is so near zero that $x - hv$
# and $x + hv$ are on different sides, the central difference is something between 0 and 1. Then
# the check fails, although the gradient is right.

# %%
def relu(x): return np.maximum(x, 0)
def relu_dx(x, dy): return dy * (x > 0)

for last in 0.5, 3e-6:
    x[2] = last
    for step in 1e-5, 1e-7:
        error = check(relu, relu_dx, x, step)
        print(f"{error:.0e}  x = 2, -1, {last:g}; step {step:g}")

# %% [markdown]
# With few numbers this happens now and then. With many numbers it happens often. Here are 100
# arrays of 10,000 random numbers. In how many of these arrays does at least one number reach
# the kink?

# %%
many, v = draw((2, 100, 10_000))
reached = (abs(many) < 1e-5 * abs(v)).any(axis=1)
print(reached.sum(), "of 100")

# %% [markdown]
# Do not raise the tolerance because of that. Keep x a few steps away from the kink, or try a
# smaller step. With a smaller step the error of a kink disappears, and the error of a wrong
# formula stays.
#
# Open `gradcheck.py` now. Read `gradcheck`: it is `check`, for several arrays at once and on
# any device. `contract` is the sum with the factors u. The paper writes the gradient in section
# 5, in its rule for the weights. It says nothing about a check.
#
# Then the exercises: `python examples/lessons/check.py 1.1 --show`, `1.2`.
