"""S4: a state matrix that is diagonal plus low rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._exponentials import exponentials
from ..convolution import causal_convolution
from ..holds import Hold, Impulse
from .coupled import CoupledChannels
from .initialization import legs_normal


__all__ = ["S4"]


class S4(CoupledChannels):
    r"""The S4 layer: HiPPO-LegS itself to begin with, as a diagonal matrix and one of rank one.

    .. math:: \dot h_c = \delta_c ((\Lambda - P P^*) h_c + B u_c), \qquad y_c = C_c h_c + D_c u_c

    The matrix and :math:`B` are shared by the channels; :math:`\delta` and :math:`C` are not. The eigenvectors of this
    matrix are useless (LegS is far from normal), and the structure survives neither exponentials nor irregular steps.
    So there are two ways, and they are two discretizations:

    * `scan`, `step` and `flow` are exact for an input that is held, at any times, by matrix exponentials
      (`CoupledChannels` says what that costs; on a regular grid it is a convolution with the exact kernel);
    * `bilinear_kernel` is the paper's, for regular grids: bilinear, by its generating function at the roots of unity,
      where :math:`\Lambda - P P^*` needs only sums over the diagonal (a Cauchy kernel and Woodbury's identity).
      `convolve` is the paper's layer. The two differ by what the bilinear rule is off, which is of second order in
      :math:`\delta \Delta`.

    The same vector :math:`P` on both sides keeps the matrix stable (Goel et al.). For irregular times S4D and S5 say as
    much at a fraction of the cost.

    Args:
        channels: channels of the inputs, and of the outputs.
        state_size: size :math:`N` of the system of a channel, even. Of each conjugate pair of the diagonal, one is
            kept, in two real numbers.
        steps: the :math:`\delta` begin between these two, per unit of time.
        hold: what an input does between its time and the next; default `HeldBefore()`.
        tile: times per tile of a scan; None: everything at once.

    Raises:
        ValueError: a size is odd or below 1, or the steps are not positive and in order.

    Reference:
        Efficiently Modeling Long Sequences with Structured State Spaces, A. Gu, K. Goel, C. Re, 2022,
        https://arxiv.org/abs/2111.00396; It's Raw! Audio Generation with State-Space Models, K. Goel, A. Gu,
        C. Donahue, C. Re, 2022, https://arxiv.org/abs/2202.09729 (the sign)

    Example:
        >>> layer = S4(3, state_size=8)
        >>> ys, state = layer(torch.tensor([0.0, 0.1, 4.0]), torch.randn(2, 3, 3))
        >>> ys.shape, layer.convolve(torch.randn(2, 100, 3)).shape
        (torch.Size([2, 3, 3]), torch.Size([2, 100, 3]))
    """

    def __init__(
        self,
        channels: int,
        state_size: int,
        *,
        steps: tuple[float, float] = (1e-3, 1e-1),
        hold: Hold | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__(channels, state_size, steps=steps, hold=hold, tile=tile)
        (lam, V), dtype = legs_normal(state_size), torch.get_default_dtype()
        orders = torch.arange(state_size, dtype=torch.float64)
        inputs, low_rank = (torch.sqrt(x).to(V.dtype) for x in (2.0 * orders + 1.0, orders + 0.5))
        self.log_decay = nn.Parameter((-lam.real).log().to(dtype))
        self.frequency = nn.Parameter(lam.imag.to(dtype))
        self.P = nn.Parameter(torch.view_as_real(V.mH @ low_rank).to(dtype))
        self.B = nn.Parameter(torch.view_as_real(V.mH @ inputs).to(dtype))
        # Complex numbers of variance one.
        self.C = nn.Parameter(torch.randn(channels, state_size // 2, 2) / 2**0.5)

    @property
    def A(self) -> Tensor:  # noqa: N802
        r""":math:`\Lambda - P P^*` for real parts before imaginary parts, `(state, state)`, real."""
        decay, frequency, P = torch.diag(-self.log_decay.exp()), torch.diag(self.frequency), self.P.mT.flatten()
        rotations = torch.cat([torch.cat([decay, -frequency], 1), torch.cat([frequency, decay], 1)])
        return rotations - 2.0 * P[:, None] * P

    def transitions(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """As in `CoupledChannels`."""
        B = self.B.mT.flatten()
        if isinstance(self.hold, Impulse):
            transition = exponentials(self.A, steps, 0)[0]
            return transition, (self.log_step.exp()[:, None, None] * B).expand(transition.shape[:-1])
        transition, level = exponentials(self.A, steps, 1)
        return transition, level @ B

    def weights(self) -> Tensor:
        """As in `CoupledChannels`."""
        return 2.0 * torch.cat([self.C[..., 0], -self.C[..., 1]], -1)

    def bilinear_kernel(self, dt: float, length: int) -> Tensor:
        r"""The kernel of the paper, on a regular grid.

        .. math:: K_l = C \bar A^l \bar B, \qquad \bar A = (I - \tfrac{\delta \Delta}2 A)^{-1}
            (I + \tfrac{\delta \Delta}2 A), \quad \bar B = (I - \tfrac{\delta \Delta}2 A)^{-1} \delta \Delta B

        Args:
            dt: the step :math:`\Delta`, in units of time.
            length: number of lags.

        Returns:
            `(lag, channel)`.

        Raises:
            ValueError: `dt` or `length` is not positive.

        Example:
            >>> layer = S4(1, state_size=4)
            >>> exact, bilinear = layer.kernel(0.01, 50), layer.bilinear_kernel(0.01, 50)
            >>> bool((exact - bilinear).abs().max() < 0.01 * exact.abs().max())
            True
        """
        if not 0 < dt < float("inf") or length < 1:
            raise ValueError(f"dt and length must be positive; got {dt} and {length}.")
        z = torch.exp(-2j * torch.pi * torch.arange(length, dtype=torch.float64, device=self.D.device) / length)
        steps = self.log_step.double().exp() * dt
        lam, P, B = (_with_conjugates(x) for x in self._diagonal())
        C = self._truncated(steps, length)
        # 1 / (2 (1 - z) / step - lam (1 + z)): the paper's Cauchy kernel, times what makes it finite at z = -1.
        shared = 2.0 * (1.0 - z) / steps[:, None]
        resolvent = 1.0 / (shared[..., None] - lam * (1.0 + z)[:, None])
        sums = [resolvent @ x[..., None] for x in (P.conj() * B, P.conj() * P)]
        outer = [(resolvent * C[:, None, :]) @ x[:, None] for x in (B, P)]
        turn = (1.0 + z)[:, None]
        found = 2.0 * (outer[0] - turn * outer[1] * sums[0] / (1.0 + turn * sums[1]))
        return torch.fft.ifft(found.squeeze(-1), dim=-1).real.mT.to(self.D.dtype)

    def convolve(self, us: Tensor, dt: float = 1.0) -> Tensor:
        """The layer of the paper, on a regular grid: bilinear, and an input acts in the step that it ends.

        Args:
            us: inputs, `(*batch, time, channel)`.
            dt: the step, in units of time.

        Returns:
            Outputs, `(*batch, time, channel)`.
        """
        return causal_convolution(self.bilinear_kernel(dt, us.shape[-2]), us) + self.D * us

    def _diagonal(self) -> tuple[Tensor, Tensor, Tensor]:
        """Half of the diagonal, and P and B in its basis, complex128."""
        lam = torch.complex(-self.log_decay.double().exp(), self.frequency.double())
        return lam, torch.view_as_complex(self.P.double()), torch.view_as_complex(self.B.double())

    def _truncated(self, steps: Tensor, length: int) -> Tensor:
        """The output matrix whose generating function ends after so many lags: C (I - A_bar^L), `(channel, state)`."""
        A, eye = self.A.double(), torch.eye(self.state_size, dtype=torch.float64, device=self.D.device)
        half = 0.5 * steps[:, None, None] * A
        power = torch.linalg.matrix_power(torch.linalg.solve(eye - half, eye + half), length)
        rows = self.weights().double()
        rows = rows - (rows[:, None, :] @ power).squeeze(1)
        real, imaginary = rows.chunk(2, -1)
        return _with_conjugates(0.5 * torch.complex(real, -imaginary))


def _with_conjugates(x: Tensor) -> Tensor:
    return torch.cat([x, x.conj()], -1)
