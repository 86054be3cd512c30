"""The process of LS4: one law, whether by convolution, by scan or step by step; and questions that change nothing."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from ctdyn.encoders import Encoding
from ctdyn.linear import HeldAfter, HeldBefore, Impulse
from ctdyn.linear.layers import LRU, S4D, S5, Hierarchical, SequenceStack
from ctdyn.models import ELBO, IWAE
from ctdyn.paths import ConstantPath, LinearPath
from ctdyn.processes import SequenceProcess
from ctdyn.processes._knots import Knots
from ctdyn.testing import check_process


F64 = torch.float64
STARTS = torch.tensor([0.0, 0.5, 2.0], dtype=F64)


def process(size=2, *, dt=0.3, inputs=0, hold=None, layer=S5, carried=4):
    torch.manual_seed(0)
    transition = SequenceStack(
        [layer(4, 4, hold=HeldAfter(), steps=(0.5, 2.0)) for _ in range(2)], size + 1 + inputs, 2 * size
    )
    decoder = SequenceStack(
        [layer(4, 4, hold=hold or HeldBefore(), steps=(0.5, 2.0)) for _ in range(2)], size + inputs, carried
    )
    return SequenceProcess(size, 3, transition, decoder, hidden=(8,), dt=dt).double()


def encodings(process, height=0.5):
    """The encoding of the contract: it speaks of what is drawn, on knots of its own."""
    rng = torch.Generator().manual_seed(0)
    known = 0.3 * torch.randn(3, process.latent_size, generator=rng, dtype=F64)

    def build(mean, std):
        t0 = STARTS[[int((row == known).all(-1).nonzero()[0]) for row in mean]]
        knots = t0[:, None] + torch.tensor([0.0, 0.35, 0.85], dtype=F64)
        rows = height * torch.tensor([1.0, -0.5, 0.5], dtype=F64)[:, None].expand(len(t0), 3, 3)
        size = process.drawn_size
        return Encoding(q0=Independent(Normal(mean[:, :size], std[:, :size]), 1), context=LinearPath(knots, rows))

    return build


@pytest.mark.parametrize("hold", [HeldBefore(), Impulse()], ids=lambda hold: type(hold).__name__)
def test_contract(hold):
    part = process(hold=hold)
    with torch.no_grad():
        # As wide as the prior: importance weights of a narrow posterior have no variance.
        part.head.layers[-1].bias[2:] = 1.3
    check_process(part, encoding=encodings(part), carried=4, tolerance=1e-9)


def test_knots_are_observations_and_even_pieces_of_wide_gaps():
    seen = torch.tensor([[0.0, 0.1, 0.1, 0.45, 0.45], [1.0, 1.05, 1.1, 1.2, 1.5]], dtype=F64)
    knots = Knots.make(seen[:, 0], seen, torch.tensor([0.7, 1.4], dtype=F64), 0.1)
    first = [0.0, 0.1, 0.1875, 0.275, 0.3625, 0.45, 0.55, 0.65, 0.75]
    second = [1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5]
    assert knots.times[0, :9].tolist() == pytest.approx(first)
    assert knots.times[1, :7].tolist() == pytest.approx(second)
    assert knots.count.tolist() == [6, 7]
    dense = torch.linspace(0.0, 1.0, 2001, dtype=F64)[None]
    assert Knots.make(dense[:, 0], dense, dense[:, -1], 0.1).count.item() == 2001
    # Dropping rows of a regular series keeps its clock, rounded to single precision as it may be.
    grid = torch.arange(0.0, 100.05, 0.1, dtype=F64)[None].float()
    thinned = grid[:, ::4]
    made = Knots.make(grid[:, 0], thinned, grid[:, -1], 0.1)
    assert (made.more, made.count.item()) == (0, 1001)
    torch.testing.assert_close(made.times, grid.double(), rtol=0, atol=2e-5)


def test_convolution_scan_and_step_are_one_law():
    """The published code generates with other kernels than it trains with."""
    part = process(layer=S4D, dt=0.1)
    times = torch.arange(100, dtype=F64)[None].expand(2, -1) * 0.1
    zs = torch.randn(3, 2, 100, 2, dtype=F64)
    convolved = part.conditionals(zs, times)
    # A gradient to the times needs the scan.
    scanned = part.conditionals(zs, times.clone().requires_grad_())
    before, state, stepped = torch.zeros(3, 2, 2, dtype=F64), None, []
    for k in range(100):
        gap = torch.full((3, 2, 1), float(k > 0), dtype=F64)
        out, state = part.transition.step(times[:, k], torch.cat([before, gap], -1), state)
        stepped.append(out[..., :2])
        before = zs[..., k, :]
    torch.testing.assert_close(convolved.mean, scanned.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(convolved.stddev, scanned.stddev, rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.stack(stepped, -2), scanned.mean, rtol=0, atol=1e-9)
    single = part.float()
    by_float = single.conditionals(zs.float(), times)
    torch.testing.assert_close(by_float.mean.double(), convolved.mean, rtol=0, atol=1e-4)


def test_what_is_generated_has_the_law_that_is_trained():
    """Standardised by the conditionals, drawn trajectories are white noise."""
    part = process(dt=0.25)
    times = torch.arange(20, dtype=F64)[None] * 0.25
    zs = part.prior(torch.zeros(1, dtype=F64), times, 2000, torch.Generator().manual_seed(0)).zs[..., :2]
    law = part.conditionals(zs, times)
    noise = ((zs - law.mean) / law.stddev).detach().flatten(1)
    assert noise.mean(0).abs().max() < 5 / 2000**0.5
    assert (noise.mT @ noise / 2000 - torch.eye(40, dtype=F64)).abs().max() < 5 * 2 / 2000**0.5


def test_the_divergence_is_that_of_each_step_and_stops_at_the_end_of_the_context():
    part = process(dt=0.3)
    build = encodings(part)
    encoding = build(0.3 * torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=F64), torch.ones(3, 6))
    ts = STARTS[:, None] + torch.tensor([0.0, 0.175, 0.35, 0.6, 0.85], dtype=F64)
    near = part.posterior(encoding, STARTS, ts, 2, torch.Generator().manual_seed(0))
    zs = near.zs[..., :2]
    # The knots are the start, the context's own, and the middles of its two gaps of .35 and .5.
    law = part.conditionals(zs, ts)
    far = torch.tensor([[0.175, 0.175], [0.0, 0.5], [0.25, 0.25], [0.0, 0.0]], dtype=F64)
    features = torch.cat([encoding.context(ts[:, 1:]), (far / 0.3).log1p().expand(3, 4, 2)], -1)
    mean, raw = part.head(features).chunk(2, -1)
    q = Normal(mean, 1e-3 + torch.nn.functional.softplus(raw - 1.0))
    p = Normal(law.mean[..., 1:, :], law.stddev[..., 1:, :])
    torch.testing.assert_close(near.kl["knots"], kl_divergence(q, p).sum((-1, -2)).mean(0))
    later = zs[..., 1:, :]
    torch.testing.assert_close(near.log_terms["knots"], (p.log_prob(later) - q.log_prob(later)).sum((-1, -2)))
    first = Independent(Normal(law.mean[0, :, 0], law.stddev[0, :, 0]), 1)
    torch.testing.assert_close(near.kl["z0"], kl_divergence(encoding.q0, first))
    torch.testing.assert_close(near.kl_by_dimension.sum(-1), near.kl["z0"])
    far_off = part.posterior(encoding, STARTS, torch.cat([ts, ts + 5.0], -1), 2, torch.Generator().manual_seed(0))
    for name in ("z0", "knots"):
        torch.testing.assert_close(far_off.kl[name], near.kl[name])
    torch.testing.assert_close(far_off.zs[..., :5, :], near.zs)
    # Behind the context a trajectory goes on as one that was drawn from the prior and happened to be there.
    ahead = far_off.zs[..., 5:, :2]
    assert bool(torch.isfinite(ahead).all())
    latent = part.posterior(encoding, STARTS, STARTS[:, None] + 0.85 + 0.3 * torch.arange(3, dtype=F64), 4000)
    every = part.posterior(encoding, STARTS, ts, 1)
    assert every.zs.shape == (1, 3, 5, 6)
    moved = latent.zs[..., 1:, :2].detach()
    assert (moved.std(0) > 0.1).all()


def test_behind_the_context_states_follow_the_conditionals():
    part = process(dt=0.3)
    encoding = encodings(part)(
        0.3 * torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=F64), torch.ones(3, 6)
    )
    inner = torch.tensor([0.0, 0.175, 0.35, 0.6, 0.85], dtype=F64)
    offsets = torch.cat([inner, 0.85 + 0.3 * torch.arange(1, 5, dtype=F64)])
    zs = part.posterior(encoding, STARTS, STARTS[:, None] + offsets, 3000, torch.Generator().manual_seed(0)).zs
    law = part.conditionals(zs[..., :2], STARTS[:, None] + offsets)
    noise = ((zs[..., :2] - law.mean) / law.stddev).detach()[..., 5:, :].flatten(-2)
    assert (noise.mean(0).abs() < 5 / 3000**0.5).all()
    covariance = noise.movedim(0, -1) @ noise.movedim(0, 1) / 3000
    assert (covariance - torch.eye(8, dtype=F64)).abs().max() < 5 * 2 / 3000**0.5


def test_series_of_one_batch_may_end_at_different_times():
    """A short context is rolled on from its own end, whatever the others do."""
    part = process(dt=0.3)
    knots = torch.tensor([[0.0, 0.2, 0.2, 0.2], [0.0, 0.2, 0.5, 1.5]], dtype=F64)
    rows = torch.randn(2, 4, 3, dtype=F64)
    q0 = Independent(Normal(torch.zeros(2, 2, dtype=F64), torch.ones(2, 2, dtype=F64)), 1)
    ts = torch.tensor([[0.1, 0.2, 0.9, 2.0]], dtype=F64).expand(2, -1)
    both = part.posterior(Encoding(q0, LinearPath(knots, rows)), torch.zeros(2, dtype=F64), ts, 2, seeded())
    twice = LinearPath(knots[[0, 0], :2], rows[[0, 0], :2])
    short = part.posterior(Encoding(q0, twice), torch.zeros(2, dtype=F64), ts, 2, seeded())
    torch.testing.assert_close(both.zs[:, 0], short.zs[:, 0])
    torch.testing.assert_close(both.kl["knots"][0], short.kl["knots"][0])


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("hold", [HeldBefore(), Impulse()], ids=lambda hold: type(hold).__name__)
def test_trajectories_are_continuous_and_read_anywhere(hold):
    part = process(dt=0.3, hold=hold)
    t0, eps = torch.zeros(1, dtype=F64), 1e-7
    knots = 0.3 * torch.arange(1, 5, dtype=F64)
    ts = torch.cat([knots - eps, knots, knots + eps])[None]
    zs = part.prior(t0, ts, 2, seeded()).zs.unflatten(-2, (3, 4))
    torch.testing.assert_close(zs[..., 2, :, :], zs[..., 1, :, :], rtol=0, atol=1e-5)
    # A kick is a jump.
    jump = (zs[..., 0, :, :] - zs[..., 1, :, :]).abs().max()
    assert jump < 1e-5 if isinstance(hold, HeldBefore) else jump > 1e-3
    # Between the knots the layers flow: their outputs are no straight lines.
    ends = part.prior(t0, torch.tensor([[0.3, 0.45, 0.6]], dtype=F64), 2, seeded()).zs
    middle = 0.5 * (ends[..., 0, :] + ends[..., 2, :])
    torch.testing.assert_close(ends[..., 1, :2], middle[..., :2])
    assert (ends[..., 1, 2:] - middle[..., 2:]).abs().max() > 1e-4


def test_times_at_knots_have_gradients_as_others_have():
    part, t0 = process(), torch.zeros(1, dtype=F64)
    slopes = []
    for shift in (0.0, 1e-9):
        ts = (0.3 * torch.arange(5, dtype=F64) + shift).expand(1, -1).requires_grad_()
        zs = part.prior(t0, ts, 2, torch.Generator().manual_seed(0)).zs
        slopes.append(torch.autograd.grad(zs[..., : part.drawn_size].sum(), ts)[0])
    torch.testing.assert_close(slopes[0][:, 1:-1], slopes[1][:, 1:-1], rtol=1e-6, atol=1e-6)


def test_inputs_drive_both_stacks():
    part = process(inputs=1)
    t0, ts = torch.zeros(1, dtype=F64), torch.tensor([[0.0, 0.45, 0.6, 1.0]], dtype=F64)
    low, high = (part.prior(t0, ts, 2, seeded(), ConstantPath(torch.full((1, 1), u, dtype=F64))).zs for u in (0.0, 1.0))
    assert ((low - high).abs() > 1e-6).all()
    with pytest.raises(ValueError, match="built for 1 inputs; 0 were given"):
        part.prior(t0, ts)
    with pytest.raises(ValueError, match="built for 0 inputs; 1 were given"):
        process().prior(t0, ts, inputs=ConstantPath(torch.zeros(1, 1, dtype=F64)))


def test_objectives():
    part = process()
    encoding = encodings(part)(
        0.3 * torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=F64), torch.ones(3, 6)
    )
    latent = part.posterior(encoding, STARTS, STARTS[:, None], 4, seeded())
    log_prob = torch.zeros(4, 3, dtype=F64)
    total = latent.kl["z0"] + latent.kl["knots"]
    torch.testing.assert_close(ELBO().bound(log_prob, latent), -total)
    assert IWAE(4).bound(log_prob, latent).shape == (3,)


def test_bad_input():
    stack = process()
    with pytest.raises(ValueError, match="q0 and a context that has knots"):
        stack.posterior(Encoding(), STARTS, STARTS[:, None])
    with pytest.raises(ValueError, match="dt, the widest gap"):
        process(dt=0.0)
    with pytest.raises(ValueError, match="needs 3 inputs and 4 outputs; it has 3 and 5"):
        SequenceProcess(2, 3, S5(3, 4, 5), stack.decoder)
    with pytest.raises(ValueError, match="must hold its inputs"):
        SequenceProcess(2, 3, SequenceStack([LRU(4, 4)], 3, 4), stack.decoder)
    with pytest.raises(ValueError, match="reads the latent state of size 3"):
        SequenceProcess(3, 3, stack.transition, stack.decoder)
    windows = Hierarchical(S5(4, 4), S5(4, 4), window=1.0)
    for layer, name in ((S5(4, 4, hold=HeldAfter()), "layers of HeldAfter"), (windows, "Hierarchical")):
        with pytest.raises(ValueError, match=f"asked at new times, .* such as S5.*; it has {name}"):
            SequenceProcess(2, 3, stack.transition, SequenceStack([layer], 2, 4))
