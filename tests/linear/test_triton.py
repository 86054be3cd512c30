"""The Triton backend without a device: its chunks over a kernel written out in torch, and where it is taken.

The kernel itself runs in `test_recurrence.py`, on a CUDA device or interpreted.
"""

import ast
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from ctdyn.linear import BlockedScan, TritonScan, _select, _triton, linear_recurrence, zoh_scan


def walk(a, b, entries, out, products, span, reverse, *, fill):
    """What the kernel does, for all rows at once."""
    length = b.shape[1]
    for chunk in range(entries.shape[1]):
        h, product = entries[:, chunk], torch.ones_like(entries[:, chunk])
        for number in range(chunk * span, min((chunk + 1) * span, length)):
            time = length - 1 - number if reverse else number
            h, product = a[:, time] * h + b[:, time], a[:, time] * product
            if fill:
                out[:, time] = h
        if not fill:
            out[:, chunk], products[:, chunk] = h, product


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> TritonScan:
    for name, value in {"_launch": walk, "_TILE": 1 << 9, "_SPAN": 4, "triton_is_installed": lambda: True}.items():
        monkeypatch.setattr(_triton, name, value)
    return TritonScan()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 7, 37, 1100])
def test_chunks_and_tiles_are_one_scan(backend: TritonScan, dtype: torch.dtype, reverse: bool, length: int):
    torch.manual_seed(0)
    a, b, h0 = (0.5 * torch.randn(2, length, 3, dtype=dtype) for _ in range(3))
    inputs = [x.requires_grad_() for x in (a, b, h0[:, 0].clone())]
    found = []
    for one in (backend, BlockedScan()):
        h = linear_recurrence(*inputs, reverse=reverse, backend=one)
        found.append([h, *torch.autograd.grad(h.abs().square().sum(), inputs)])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def test_inputs_of_half_precision(backend: TritonScan):
    torch.manual_seed(0)
    lam, dt, v = -torch.rand(3), torch.rand(2, 40), torch.randn(2, 40, 3).to(torch.bfloat16)
    h = zoh_scan(lam.to(torch.bfloat16), dt, v, backend=backend)
    assert h.dtype == torch.bfloat16
    wide = zoh_scan(lam.to(torch.bfloat16).float(), dt, v.float(), backend=backend)
    assert torch.equal(h, wide.to(torch.bfloat16))


def test_it_is_taken_on_cuda_alone(backend: TritonScan, monkeypatch: pytest.MonkeyPatch):
    assert not TritonScan.takes(torch.ones(1))
    with FakeTensorMode():
        there = torch.empty(1, dtype=torch.complex64, device="cuda")
    assert TritonScan.takes(there)
    monkeypatch.setattr(_select, "_triton", lambda: backend)
    for installed in (True, False):
        monkeypatch.setattr(_select, "triton_is_installed", lambda installed=installed: installed)
        assert _select.default_backend(there) is (backend if installed else _select._BLOCKED)


def test_without_triton_it_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_triton, "triton_is_installed", lambda: False)
    with pytest.raises(ImportError, match="comes with torch for CUDA"):
        TritonScan()


def test_the_kernel_takes_what_it_is_launched_with():
    tree = ast.parse(Path(_triton.__file__).with_name("_triton_kernels.py").read_text())
    (kernel,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    names = [argument.arg for argument in kernel.args.args]
    assert names == ["tensors", "strides", "sizes", "REVERSE", "PAIRED", "FILL", "BLOCK"]
