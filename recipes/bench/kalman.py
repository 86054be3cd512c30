"""How fast the Kalman filter is: parallel in time and compiled, against loops over the times, with all gradients.

Problem: a chain of given transitions (state n, p channels, L times, B series, float64), the log-likelihood and its
gradients to transitions, noise, observation rows and observations. Ways:
"compiled": step by step, with derivatives in closed form (numba; what is taken by default on a CPU).
"chunks": parallel in time in plain torch, the same derivatives.
"one chunk": the same formulas step by step in plain torch.
"loop": a careful loop over `unbind`, with autograd; what a user would write.
"jax scan", "jax associative scan": the loop, and the parallel filter by the published formulas, jitted, in float64;
up to L = 256, because beyond it takes minutes to compile.

All ways of a problem run in turns on CPU time of the process (JAX may use its threads); ratios are medians of ratios
within a round, against "loop". "long": one series of 10^6 observations of a Matern-5/2 process, likelihood with
gradients to all parameters from times and values on; seconds, and the rise of the peak memory of the process.

Expected (1 CPU thread): n = 4, L = 4096, B = 1: compiled 280x, chunks 110x; n = 4, L = 1024, B = 16: compiled 33x,
chunks 8x; long: about 3 s of CPU, below 100 MiB.

    python recipes/bench/kalman.py --quick --seed 0

--quick takes fewer rounds, shorter series and 10^5 observations. A peer that is not installed gives a row that says
absent. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ctdyn.data import IrregularBatch
from ctdyn.linear import Chain, Dense, LinearGaussian, Matern


#: State, channels, length and batch.
PROBLEMS = ((4, 2, 4096, 1), (4, 2, 1024, 16), (4, 2, 256, 16), (2, 1, 1024, 16), (8, 4, 1024, 1))


#: Beyond this length the parallel filter takes JAX minutes to compile.
JAX_LENGTH = 256


def make(n: int, p: int, length: int, batch: int) -> Chain:
    """The chain of a dense model at irregular times, cut from its graph and ready for gradients."""
    A = torch.randn(n, n, dtype=torch.float64) - 2.0 * n**0.5 * torch.eye(n, dtype=torch.float64)
    H = torch.randn(p, n, dtype=torch.float64)
    model = LinearGaussian(Dense(A, S=torch.eye(n, dtype=torch.float64)), H=H, R=0.1)
    ts = torch.rand(batch, length, dtype=torch.float64).cumsum(-1)
    values = torch.randn(batch, length, p, dtype=torch.float64)
    chain = model.chain(IrregularBatch(ts, values, torch.rand(values.shape) > 0.2))
    return Chain(*(x.detach().expand(*x.shape).clone().requires_grad_() for x in chain))


def loop(chain: Chain) -> Tensor:
    """The filter as a careful user writes it."""
    eye = torch.eye(chain.H.shape[-2], dtype=chain.H.dtype)
    m, P = chain.m0.expand(chain.y.shape[0], -1)[..., None], chain.P0
    parts = (x.unbind(1) for x in (chain.F, chain.b[..., None], chain.Q, chain.H, chain.y[..., None]))
    nats = []
    for F, b, Q, H, y in zip(*parts, strict=True):
        m, P = F @ m + b, F @ P @ F.mT + Q
        PH = P @ H.mT
        L = torch.linalg.cholesky(H @ PH + eye)
        both = torch.linalg.solve_triangular(L, torch.cat([PH.mT, y - H @ m], -1), upper=False)
        W, e = both[..., :-1], both[..., -1:]
        m, P = m + W.mT @ e, P - W.mT @ W
        nats.append(-L.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * e.square().sum((-2, -1)))
    return torch.stack(nats, -1).sum() + chain.nats.sum()


def gradients(run: Callable[[Chain], Tensor], chain: Chain) -> tuple[float, list[Tensor]]:
    """The log-likelihood and the gradients that count."""
    value = run(chain)
    return float(value.detach()), list(torch.autograd.grad(value, [chain.F, chain.Q, chain.H, chain.y]))


def jax_ways(chain: Chain) -> dict[str, Callable[[], object]]:
    """Both filters in JAX, compiled."""
    import jax  # pyright: ignore[reportMissingImports]

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

    arrays = tuple(jnp.array(x.detach().numpy()) for x in (chain.F, chain.Q, chain.H, chain.y))
    P0, eye = jnp.array(chain.P0.detach().numpy()), jnp.eye(chain.H.shape[-2])
    n = chain.F.shape[-1]
    T = lambda x: jnp.swapaxes(x, -1, -2)  # noqa: E731

    def nats(m, P, F, Q, H, y):
        m, P = F @ m, F @ P @ T(F) + Q
        S, v = H @ P @ T(H) + eye, y - H @ m
        return m, P, S, v, -0.5 * (v @ jnp.linalg.solve(S, v) + jnp.linalg.slogdet(S)[1])

    def sequential(F, Q, H, y):
        def step(carry, x):
            F, Q, H, y = x
            m, P, S, v, value = nats(*carry, F, Q, H, y)
            K = jnp.linalg.solve(S, H @ P).T
            return (m + K @ v, P - K @ S @ K.T), value

        return jax.lax.scan(step, (jnp.zeros(n), P0), (F, Q, H, y))[1].sum()

    def element(F, Q, H, y):
        S = H @ Q @ T(H) + eye
        K = jnp.linalg.solve(S, H @ Q).T
        A, b, C = F - K @ H @ F, K @ y, Q - K @ S @ K.T
        HF = H @ F
        return A, b, C, HF.T @ jnp.linalg.solve(S, y), HF.T @ jnp.linalg.solve(S, HF)

    def combine(one, two):
        A1, b1, C1, e1, J1 = one
        A2, b2, C2, e2, J2 = two
        inner = jnp.eye(n) + C1 @ J2
        left = T(jnp.linalg.solve(T(inner), T(A2)))
        right = T(jnp.linalg.solve(inner, A1))
        A, C = left @ A1, left @ C1 @ T(A2) + C2
        b = (left @ (b1 + (C1 @ e2[..., None])[..., 0])[..., None])[..., 0] + b2
        e = (right @ (e2 - (J2 @ b1[..., None])[..., 0])[..., None])[..., 0] + e1
        return A, b, C, e, right @ J2 @ A1 + J1

    def parallel(F, Q, H, y):
        # The first element carries the initial state.
        first = element(jnp.zeros_like(F[0]), F[0] @ P0 @ F[0].T + Q[0], H[0], y[0])
        rest = jax.vmap(element)(F[1:], Q[1:], H[1:], y[1:])
        elements = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)
        _, m, P, _, _ = jax.lax.associative_scan(jax.vmap(combine), elements)
        m = jnp.concatenate([jnp.zeros((1, n)), m[:-1]])
        P = jnp.concatenate([P0[None], P[:-1]])
        return jax.vmap(lambda *x: nats(*x)[-1])(m, P, F, Q, H, y).sum()

    ways = {}
    for name, run in (("jax scan", sequential), ("jax associative scan", parallel)):
        total = jax.jit(jax.value_and_grad(lambda *x, run=run: jax.vmap(run)(*x).sum(), argnums=(0, 1, 2, 3)))
        ways[name] = lambda total=total: jax.block_until_ready(total(*arrays))
    return ways


def measure(n: int, p: int, length: int, batch: int, rounds: int) -> list[dict[str, object]]:
    """All ways in turns."""
    chain = make(n, p, length, batch)
    ways: dict[str, Callable[[], object]] = {
        "compiled": lambda: gradients(lambda c: c.filter()[2].sum(), chain),
        "chunks": lambda: gradients(lambda c: c.filter(chunks=chunks)[2].sum(), chain),
        "one chunk": lambda: gradients(lambda c: c.filter(chunks=1)[2].sum(), chain),
        "loop": lambda: gradients(loop, chain),
    }
    chunks = max(2, round(1.5 * math.sqrt(length) / max(1.0, batch / 64)))
    problem = f"n={n} p={p} L={length} B={batch}"
    rows: list[dict[str, object]] = []
    if importlib.util.find_spec("numba") is None:
        del ways["compiled"]
        rows.append({"problem": problem, "way": "compiled", "note": "absent"})
    if importlib.util.find_spec("jax") is None:
        rows.append({"problem": problem, "way": "jax", "note": "absent"})
    elif length <= JAX_LENGTH:
        ways |= jax_ways(chain)
    exact, expected = gradients(loop, chain)
    times: dict[str, list[float]] = {name: [] for name in ways}
    walls: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, object] = {}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            start, wall = time.process_time(), time.perf_counter()
            results[name] = run()
            # The first round compiles.
            if turn:
                times[name].append(time.process_time() - start)
                walls[name].append(time.perf_counter() - wall)
    for name in ways:
        ratio = sorted(a / b for a, b in zip(times["loop"], times[name], strict=True))[rounds // 2]
        value, found = results[name]  # type: ignore[misc]
        value = float(value) + (float(chain.nats.sum().detach()) if name.startswith("jax") else 0.0)
        slopes = [torch.tensor(x.tolist(), dtype=torch.float64) if name.startswith("jax") else x for x in found]
        error = max(_difference(a, b) for a, b in zip(slopes, expected, strict=True))
        row = {"problem": problem, "way": name, "cpu_ms": 1e3 * sorted(times[name])[rounds // 2]}
        row |= {"wall_ms": 1e3 * sorted(walls[name])[rounds // 2], "faster_than_loop": ratio}
        rows.append(row | {"nats_error": abs(value / exact - 1), "gradient_error": error})
    return rows


def _difference(got: Tensor, want: Tensor) -> float:
    # Only the symmetric part of a derivative with respect to a covariance has a meaning.
    if want.shape[-1] == want.shape[-2]:
        got, want = got + got.mT, want + want.mT
    return float((got - want).abs().max() / want.abs().max())


def long_series(count: int) -> dict[str, object]:
    """The likelihood of one long series with gradients to all parameters."""
    model = LinearGaussian(Matern(2.5), R=0.1)
    ts = torch.rand(count, dtype=torch.float64).cumsum(-1)
    values = torch.randn(count, 1, dtype=torch.float64)
    batch = IrregularBatch(ts, values, torch.rand(count, 1) > 0.2)
    short = IrregularBatch(ts[:200], values[:200], batch.mask[:200])
    model.log_prob(short).backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, wall = time.process_time(), time.perf_counter()
    model.log_prob(batch).backward()
    row = {"problem": f"long, {count} observations", "way": "ctdyn", "cpu_s": time.process_time() - start}
    rise = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return row | {"wall_s": time.perf_counter() - wall, "peak_rise_mib": rise}


def main() -> None:
    """Run, print, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    # First, while the peak of the memory is its own.
    rows = [long_series(10**5 if options.quick else 10**6)]
    print({name: round(x, 2) if isinstance(x, float) else x for name, x in rows[0].items()})
    print(f"\n{'problem':<22} {'way':<22} {'cpu ms':>9} {'wall ms':>9} {'loop / it':>9} {'nats':>8} {'gradient':>8}")
    for n, p, length, batch in PROBLEMS[:2] if options.quick else PROBLEMS:
        for row in measure(n, p, length // 4 if options.quick else length, batch, 1 if options.quick else 5):
            rows.append(row)
            if "note" in row:
                print(f"{row['problem']:<22} {row['way']:<22} {row['note']}")
                continue
            print(
                f"{row['problem']:<22} {row['way']:<22} {row['cpu_ms']:>9.1f} {row['wall_ms']:>9.1f} "
                f"{row['faster_than_loop']:>8.1f}x {row['nats_error']:>8.0e} {row['gradient_error']:>8.0e}"
            )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
