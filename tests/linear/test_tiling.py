"""Tiles change what is kept, and nothing else."""

import pytest
import torch
from torch import Tensor

from ctdyn.linear import over_tiles, zoh_scan


LENGTH, WIDTH = 4000, 64


def layer(reverse: bool = False):
    draw = torch.Generator().manual_seed(0)
    lam = torch.complex(-torch.rand(WIDTH, generator=draw), torch.rand(WIDTH, generator=draw)).requires_grad_()
    widen = torch.randn(2, WIDTH, generator=draw, dtype=torch.complex64, requires_grad=True)

    def body(h: Tensor, dt: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        states = zoh_scan(lam, dt[..., 0], u.to(widen.dtype) @ widen, h, reverse=reverse)
        return states.real.mean(-1, keepdim=True), states[..., 0 if reverse else -1, :]

    dt, u = torch.rand(1, LENGTH, 1, generator=draw), torch.randn(1, LENGTH, 2, generator=draw)
    return body, torch.zeros(1, WIDTH, dtype=torch.complex64), dt, u.requires_grad_(), (lam, widen, u)


def kept_bytes(run) -> int:
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(kept.values())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("tile", [128, 1000, 5000])
def test_tiles_change_nothing(tile: int, reverse: bool) -> None:
    body, h0, dt, u, inputs = layer(reverse)
    y, last = body(h0, dt, u)
    ys, end = over_tiles(body, h0, (dt, u), tile, reverse=reverse)
    torch.testing.assert_close(ys, y)
    torch.testing.assert_close(end, last)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad(y, inputs, weight)
    for got, x in zip(torch.autograd.grad(ys, inputs, weight), expected, strict=True):
        torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))


def test_only_inputs_and_the_states_between_tiles_are_kept() -> None:
    body, h0, dt, u, _ = layer()
    states = LENGTH * WIDTH * 8
    assert kept_bytes(lambda: body(h0, dt, u)) > states
    assert kept_bytes(lambda: over_tiles(body, h0, (dt, u), 125)) < states / 20


def test_without_gradients() -> None:
    body, h0, dt, u, _ = layer()
    with torch.no_grad():
        torch.testing.assert_close(over_tiles(body, h0, (dt, u), 300)[0], body(h0, dt, u)[0])


def test_arguments() -> None:
    body, h0, dt, u, _ = layer()
    with pytest.raises(ValueError, match="tile must be"):
        over_tiles(body, h0, (dt, u), 0)
    with pytest.raises(ValueError, match="one length"):
        over_tiles(body, h0, (dt[:, 1:], u), 5)
    with pytest.raises(ValueError, match="one length"):
        over_tiles(body, h0, (), 5)
