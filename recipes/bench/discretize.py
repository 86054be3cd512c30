"""How fast and how accurate steps of every length are: transitions of one matrix, and the noise of a Matern process.

Part 1: exp(A dt) for one matrix A = randn / sqrt(n) - 1 and K random steps in (0, 1) and (0, 10), with the gradient to
A under a random weight, against `torch.linalg.matrix_exp` on the batch of K matrices. CPU times of the process, both in
turns, median of the paired ratios. "error": the largest difference from matrix_exp in float64.

Part 2: the noise covariance of a Matern-5/2 process (length scale 1.3) over dt = 1e-4 .. 100, by the closed form and by
`Dense` (series and doubling), against Van Loan's block exponential and the difference of stationary covariances.
Reference: Van Loan at 400 digits (mpmath). Error: largest difference over sqrt(Q_ii Q_jj).

Expected (1 CPU thread): 20x at n = 4 to 40x to 90x at n = 32 and 64; errors of ours below 1e-6 in float32 and 1e-14
in float64 at every step, while both others lose all digits at one end.

    python recipes/bench/discretize.py --quick --seed 0

--quick takes fewer repetitions and sizes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ctdyn.linear import Dense, Matern


SIZES = ((4, 16384), (8, 16384), (16, 4096), (32, 4096), (64, 1024))
STEPS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def transitions(n: int, count: int, longest: float, dtype: torch.dtype, repeats: int) -> dict[str, float | str]:
    """One row of part 1."""
    A = (torch.randn(n, n, dtype=dtype) / n**0.5 - torch.eye(n, dtype=dtype)).requires_grad_()
    dt = longest * torch.rand(count, dtype=dtype)
    weight = torch.randn(count, n, n, dtype=dtype)

    def ours() -> Tensor:
        return Dense(A).flow(dt)[0]

    def theirs() -> Tensor:
        return torch.linalg.matrix_exp(A * dt[:, None, None])

    def both(make: Callable[[], Tensor]) -> None:
        torch.autograd.grad((make() * weight).sum(), A)

    with torch.no_grad():
        exact = torch.linalg.matrix_exp(A.double() * dt.double()[:, None, None])
        error = float((ours().double() - exact).abs().max())
    both(ours)
    pairs = [(cpu_seconds(lambda: both(ours)), cpu_seconds(lambda: both(theirs))) for _ in range(repeats)]
    with torch.no_grad():
        forward = [(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(repeats)]
    ratio, alone = (sorted(b / a for a, b in times)[repeats // 2] for times in (pairs, forward))
    found = {"n": n, "steps": count, "longest": longest, "dtype": str(dtype)[6:]}
    return found | {"ms": min(a for a, _ in pairs) * 1e3, "ratio": ratio, "ratio_forward": alone, "error": error}


def van_loan(A: Tensor, S: Tensor, dt: float) -> Tensor:
    """As it is written: the exponential of a block matrix."""
    n = len(A)
    block = torch.zeros(2 * n, 2 * n, dtype=A.dtype)
    block[:n, :n], block[:n, n:], block[n:, n:] = -A, S, A.mT
    whole = torch.matrix_exp(block * dt)
    return whole[n:, n:].mT @ whole[:n, n:]


def exact_noise(A: Tensor, S: Tensor, dt: float) -> Tensor:
    """The same at 400 digits."""
    import mpmath

    n = len(A)
    with mpmath.workdps(400):
        block = mpmath.zeros(2 * n)
        for i in range(n):
            for j in range(n):
                block[i, j], block[n + i, n + j] = -mpmath.mpf(float(A[i, j])), mpmath.mpf(float(A[j, i]))
                block[i, n + j] = mpmath.mpf(float(S[i, j]))
        whole = mpmath.expm(block * mpmath.mpf(dt))
        noise = whole[n : 2 * n, n : 2 * n].T * whole[0:n, n : 2 * n]
        return torch.tensor([[float(noise[i, j]) for j in range(n)] for i in range(n)], dtype=torch.float64)


def noise_errors(dtype: torch.dtype) -> dict[str, list[float]]:
    """Part 2: for each way, the scaled error at each step."""
    double = torch.tensor(1.3, dtype=torch.float64)
    truth = Matern(2.5, lengthscale=double)
    made = Matern(2.5, lengthscale=double.to(dtype))
    A, S = truth.A.detach(), truth.density().detach()
    P = truth.stationary().detach().to(dtype)
    dense = Dense(A.to(dtype), S=S.to(dtype))
    errors: dict[str, list[float]] = {"Matern": [], "Dense": [], "Van Loan": [], "P - F P F'": []}
    for dt in STEPS:
        exact, step = exact_noise(A, S, float(torch.tensor(dt, dtype=dtype))), torch.tensor([dt], dtype=dtype)
        scale = exact.diagonal().sqrt()
        F = torch.matrix_exp(A.to(dtype) * dt)
        found = {
            "Matern": made.noise(step)[0],
            "Dense": dense.noise(step)[0],
            "Van Loan": van_loan(A.to(dtype), S.to(dtype), dt),
            "P - F P F'": P - F @ P @ F.mT,
        }
        for name, Q in found.items():
            errors[name].append(float(((Q.detach().double() - exact).abs() / (scale[:, None] * scale)).max()))
    return errors


def main() -> None:
    """Run, print, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    repeats = 3 if options.quick else 7
    sizes = ((4, 16384), (16, 4096), (64, 256)) if options.quick else SIZES
    rows = []
    print(f"{'n':>3} {'steps':>6} {'longest':>7} {'dtype':>8} {'f+b ms':>8} {'f+b':>7} {'forward':>8} {'error':>8}")
    for dtype in (torch.float32, torch.float64):
        for n, count in sizes:
            for longest in (1.0, 10.0):
                row = transitions(n, count, longest, dtype, repeats if n < 32 else 3)
                rows.append(row)
                print(
                    f"{n:>3} {count:>6} {longest:>7} {row['dtype']:>8} {row['ms']:>8.2f} {row['ratio']:>6.0f}x "
                    f"{row['ratio_forward']:>7.0f}x {row['error']:>8.0e}"
                )
    result: dict[str, object] = {"transitions": rows}
    if importlib.util.find_spec("mpmath") is None:
        print("mpmath: absent")
    else:
        for dtype in (torch.float32, torch.float64):
            errors = noise_errors(dtype)
            print(f"\nQ(dt), {str(dtype)[6:]:<8} " + " ".join(f"{dt:>8.0e}" for dt in STEPS))
            for name, values in errors.items():
                print(f"{name:<15} " + " ".join(f"{value:>8.0e}" for value in values))
            result[f"noise_error_{str(dtype)[6:]}"] = {name: max(values) for name, values in errors.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
