"""Coefficients of a row of states for the compiled kernels; no branches, so that the loops over states vectorise.

Reference:
    William J. Cody and William Waite, "Software Manual for the Elementary Functions", 1980.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # pyright: ignore[reportMissingImports]
from numba import njit, types  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic, overload  # pyright: ignore[reportMissingImports]
from numba.np.arrayobj import make_array  # pyright: ignore[reportMissingImports]


__all__ = [
    "BEND",
    "GAIN",
    "INVERSE",
    "KEPT",
    "LANES",
    "RATE",
    "SLOPE",
    "STEP",
    "add_products",
    "allocating_kernel",
    "coefficients",
    "kernel",
    "part_kernel",
    "prefetch",
    "sigmoid",
    "slopes",
    "softplus",
    "sum_kernel",
    "take_products",
    "tanh",
]

#: Beyond it torch has a softplus straight.
BEND = 20.0
#: States that coefficients are made for at once, of one step or of several.
LANES = 256
#: Where, among rows of so many, what is theirs begins.
RATE, INVERSE, STEP, KEPT, GAIN, SLOPE = (LANES * row for row in (0, 2, 4, 5, 7, 9))

# No allocation inside: else every slice of an array counts its references, and for short rows that is most of the time.
_OPTIONS: Any = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}, "_nrt": False}
_ALLOCATING_OPTIONS: Any = {name: option for name, option in _OPTIONS.items() if name != "_nrt"}
_SUM_OPTIONS: Any = {**_OPTIONS, "fastmath": {"contract", "reassoc", "nsz"}}
_F = np.float32

_LOG2E, _TWO_OVER_PI = 1.0 / math.log(2.0), 2.0 / math.pi
# ln 2 in two parts and pi / 2 in three: products of the leading parts with a small integer are exact.
_LN2_1, _LN2_2 = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LN2_1F, _LN2_2F = _F(0.693359375), _F(math.log(2.0) - 0.693359375)
_PI_1, _PI_2, _PI_3 = 1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21
_PI_1F, _PI_2F, _PI_3F = _F(1.5703125), _F(4.837512969970703e-4), _F(math.pi / 2.0 - 1.5703125 - 4.837512969970703e-4)
_EXP = tuple(1.0 / math.factorial(n) for n in range(1, 15))
_SIN = tuple((-1.0) ** n / math.factorial(2 * n + 1) for n in range(1, 9))
_COS = tuple((-1.0) ** n / math.factorial(2 * n) for n in range(1, 10))
_SLOPE = tuple((n + 1) / math.factorial(n + 2) for n in range(10))
_ATANH = tuple(1.0 / (2 * n + 1) for n in range(17))
_EXPF, _SINF, _COSF, _SLOPEF, _ATANHF = (
    tuple(map(_F, x)) for x in (_EXP[:7], _SIN[:4], _COS[:5], _SLOPE[:5], _ATANH[:8])
)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that runs without the interpreter lock and is kept on disk."""
    # A type checker may have wrapped it; numba needs the function itself.
    return njit(**_OPTIONS)(inspect.unwrap(function))


def part_kernel(function: Callable[..., Any]) -> Any:
    """Likewise, for a part of a kernel that is so short that a call of it would cost more than it does."""
    return njit(**_OPTIONS, forceinline=True)(inspect.unwrap(function))


def sum_kernel(function: Callable[..., Any]) -> Any:
    """Likewise, for sums over a row, which may be taken in any order."""
    return njit(**_SUM_OPTIONS)(inspect.unwrap(function))


def allocating_kernel(function: Callable[..., Any]) -> Any:
    """Likewise, for a function that makes arrays of its own."""
    return njit(**_ALLOCATING_OPTIONS)(inspect.unwrap(function))


def _accumulates(operation: str) -> Any:
    """`out[c + v] += A[a + v] B[b + v]`, or `-=`, for as many `v` as the tuple `side` has entries, all at once.

    A compiler could do so only if it knew that the arrays do not overlap.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = len(signature.args[6])
        vector = ir.VectorType(ir.DoubleType(), count) if count > 1 else ir.DoubleType()

        def at(place: int) -> Any:
            array = make_array(signature.args[place])(context, builder, args[place])
            return builder.bitcast(builder.gep(array.data, [args[place + 1]]), vector.as_pointer())

        into, x, y = (at(place) for place in (0, 2, 4))
        product = builder.fmul(builder.load(x, align=8), builder.load(y, align=8), flags=("contract",))
        total = getattr(builder, operation)(builder.load(into, align=8), product, flags=("contract",))
        builder.store(total, into, align=8)
        return context.get_dummy_value()

    def accumulate(typing: Any, out: Any, c: Any, A: Any, a: Any, B: Any, b: Any, side: Any) -> Any:
        return types.void(out, types.intp, A, types.intp, B, types.intp, side), build

    return intrinsic(accumulate)


add_products, take_products = _accumulates("fadd"), _accumulates("fsub")


@intrinsic
def _prefetch_line(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address; a hint, which may be wrong."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        # To be read, to be kept, data.
        builder.call(function, [builder.inttoptr(args[0], pointer), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.intp), build


@kernel
def prefetch(row):
    """Ask for a row that will be wanted soon: processors foresee rows in rising order alone, and not all others."""
    address = row.ctypes.data
    for offset in range(0, row.shape[0] * row.itemsize, 64):
        _prefetch_line(address + offset)  # pyright: ignore[reportCallIssue]


@kernel
def _horner(x, terms):
    total = terms[-1]
    for i in range(len(terms) - 1):
        total = total * x + terms[len(terms) - 2 - i]
    return total


@kernel
def _exp_single(x):
    # Beyond these bounds the result is as good as zero, or the recurrence overflows in any case.
    x = min(max(x, _F(-87.0)), _F(88.0))
    n = np.rint(x * _F(_LOG2E))
    r = (x - n * _LN2_1F) - n * _LN2_2F
    p = r * _horner(r, _EXPF)
    scale = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return scale + scale * p, scale * p + (scale - _F(1.0))


@kernel
def _exp_double(x):
    x = min(max(x, -708.0), 709.0)
    n = np.rint(x * _LOG2E)
    r = (x - n * _LN2_1) - n * _LN2_2
    p = r * _horner(r, _EXP)
    scale = np.int64((np.int64(n) + np.int64(1023)) << np.int64(52)).view(np.float64)
    return scale + scale * p, scale * p + (scale - 1.0)


@kernel
def _turned(s, c, quadrant):
    odd = (quadrant == 1) | (quadrant == 3)
    sine, cosine = (c if odd else s), (s if odd else c)
    return (-sine if quadrant >= 2 else sine), (-cosine if (quadrant == 1) | (quadrant == 2) else cosine)


@kernel
def _sincos_single(x):
    n = np.rint(x * _F(_TWO_OVER_PI))
    r = ((x - n * _PI_1F) - n * _PI_2F) - n * _PI_3F
    # A phase so large that it has lost its meaning must still give a finite sine.
    r = min(max(r, _F(-0.8)), _F(0.8))
    q = r * r
    return _turned(r + r * q * _horner(q, _SINF), _F(1.0) + q * _horner(q, _COSF), n - _F(4.0) * np.floor(n * _F(0.25)))


@kernel
def _sincos_double(x):
    n = np.rint(x * _TWO_OVER_PI)
    r = ((x - n * _PI_1) - n * _PI_2) - n * _PI_3
    r = min(max(r, -0.8), 0.8)
    q = r * r
    return _turned(r + r * q * _horner(q, _SIN), 1.0 + q * _horner(q, _COS), n - 4.0 * np.floor(n * 0.25))


@kernel
def _series(x, y, terms):
    real, imag = terms[-1], terms[-1] * 0
    for i in range(len(terms) - 1):
        real, imag = real * x - imag * y + terms[len(terms) - 2 - i], real * y + imag * x
    return real, imag


def _exp(x: Any) -> Any:
    """`exp(x)` and `expm1(x)`."""
    raise NotImplementedError


def _sincos(x: Any) -> Any:
    raise NotImplementedError


def _slope_series(x: Any, y: Any) -> Any:
    """The sum of (n + 1) z^n / (n + 2)! at z = x + iy, for |z| < 1/10."""
    raise NotImplementedError


def _atanh(x: Any) -> Any:
    """For |x| <= 1/3."""
    raise NotImplementedError


@kernel
def _atanh_double(x):
    # In two, since no compiler unrolls the whole.
    square = x * x
    return x * (_horner(square * square, _ATANH[::2]) + square * _horner(square * square, _ATANH[1::2]))


@overload(_atanh, jit_options=_OPTIONS)
def _choose_atanh(x):
    if x == types.float32:
        return lambda x: x * _horner(x * x, _ATANHF)
    return lambda x: _atanh_double(x)


@overload(_exp, jit_options=_OPTIONS)
def _choose_exp(x):
    return (lambda x: _exp_single(x)) if x == types.float32 else (lambda x: _exp_double(x))


@overload(_sincos, jit_options=_OPTIONS)
def _choose_sincos(x):
    return (lambda x: _sincos_single(x)) if x == types.float32 else (lambda x: _sincos_double(x))


@overload(_slope_series, jit_options=_OPTIONS)
def _choose_slope_series(x, y):
    if x == types.float32:
        return lambda x, y: _series(x, y, _SLOPEF)
    return lambda x, y: _series(x, y, _SLOPE)


@kernel
def tanh(x):
    """The hyperbolic tangent; of what is not a number, that."""
    less = _exp(x + x)[1]
    return x if x != x else less / (less + type(x)(2.0))


@kernel
def sigmoid(x):
    """The logistic function; of what is not a number, that."""
    return x if x != x else type(x)(1.0) / (type(x)(1.0) + _exp(-x)[0])


@kernel
def softplus(x):
    """log(1 + exp(x)), and x itself beyond the bend; of what is not a number, that."""
    zero, two = type(x)(0.0), type(x)(2.0)
    less = _exp(-abs(x))[0]
    less = zero if x > type(x)(BEND) else less
    # log(1 + e) is twice the inverse hyperbolic tangent of e / (2 + e).
    return (zero if x <= zero else x) + two * _atanh(less / (two + less))


@kernel
def coefficients(parts, count, paired):
    """Fill the first `count` lanes of KEPT with exp(lam dt) and of GAIN with (exp(lam dt) - 1) / lam.

    Args:
        parts: rows of `LANES` numbers one after another, so that it is plain to a compiler that they do not overlap:
            from RATE on the eigenvalues, from INVERSE on their inverses (0 for 0), from STEP on dt.
        count: how many lanes.
        paired: the eigenvalues are complex; a row of real parts is followed by one of imaginary ones, else left alone.
    """
    if paired:
        _fill_complex(parts, count)
    else:
        _fill_real(parts, count)


@kernel
def _fill_complex(parts, count):
    half = type(parts[0])(0.5)
    for j in range(count):
        dt, u, w = parts[STEP + j], parts[INVERSE + j], parts[INVERSE + LANES + j]
        whole, less = _exp(parts[RATE + j] * dt)
        s, c = _sincos(parts[RATE + LANES + j] * (half * dt))
        # Half angles: 1 - cos = 2 sin^2 keeps the digits that the difference would lose.
        turn = whole * (s + s)
        parts[KEPT + j], parts[KEPT + LANES + j] = whole - s * turn, turn * c
        re, im = less - s * turn, turn * c
        still = (u == 0) & (w == 0)
        parts[GAIN + j] = dt if still else re * u - im * w
        parts[GAIN + LANES + j] = re * w + im * u


@kernel
def _fill_real(parts, count):
    for j in range(count):
        dt, u = parts[STEP + j], parts[INVERSE + j]
        whole, less = _exp(parts[RATE + j] * dt)
        parts[KEPT + j] = whole
        parts[GAIN + j] = dt if u == 0 else less * u


@kernel
def slopes(parts, count):
    """Fill SLOPE with the derivatives of the gains in lam, as `coefficients` does; imaginary parts are 0 if real."""
    small = type(parts[0])(0.01)
    for j in range(count):
        dt, u, w = parts[STEP + j], parts[INVERSE + j], parts[INVERSE + LANES + j]
        x, y = parts[RATE + j] * dt, parts[RATE + LANES + j] * dt
        a, b = _slope_series(x, y)
        c = dt * parts[KEPT + j] - parts[GAIN + j]
        d = dt * parts[KEPT + LANES + j] - parts[GAIN + LANES + j]
        # The closed form loses digits at small |z|, where a few terms of the series have them all.
        near = x * x + y * y < small
        parts[SLOPE + j] = dt * dt * a if near else c * u - d * w
        parts[SLOPE + LANES + j] = dt * dt * b if near else c * w + d * u
