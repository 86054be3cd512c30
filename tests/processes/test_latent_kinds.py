"""Static and categorical latents, and processes side by side."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, StudentT, kl_divergence

from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.encoders import Encoding, GRUEncoder, JointEncoder, SiteEncoder, SummaryEncoder
from ctdyn.fields import LinearField, MLPField, MLPSDEField
from ctdyn.integrate import ConstantStep
from ctdyn.likelihoods import Gaussian
from ctdyn.linear import Matern
from ctdyn.models import ELBO, IWAE, Anneal, LatentVAE
from ctdyn.processes import (
    CategoricalProcess,
    JointProcess,
    LatentSample,
    LinearGaussianProcess,
    MatchedSDEProcess,
    ODEProcess,
    SDEProcess,
    StaticProcess,
)
from ctdyn.solvers import RK4
from ctdyn.testing import check_model, check_process, example_window


F64 = torch.float64
CHANNELS = (Channel("a"), Channel("b"))


def identity(process):
    """The network from the description to the posterior leaves it as it is."""
    with torch.no_grad():
        layer = process.net.layers[0]
        layer.weight.copy_(torch.eye(len(layer.weight)))
        layer.bias.zero_()
    return process


def of_static(mean, std):
    """The description from which an untouched network makes a normal distribution."""
    return Encoding(static=torch.cat([mean, std.expm1().clamp(min=1e-300).log()], -1))


def of_class(mean, std):
    return Encoding(static=(mean + 1e-30).log().clamp(min=-1e3 if std.max() < 1e-6 else -1.0))


def test_static_contract():
    check_process(identity(StaticProcess(2, 4)), encoding=of_static)


def test_categorical_contract():
    starts = torch.eye(3)
    check_process(identity(CategoricalProcess(3, 3)), encoding=of_class, start=starts)
    check_process(identity(CategoricalProcess(3, 3, learned_prior=True)), encoding=of_class, start=starts)


def joint():
    ode = ODEProcess(LinearField(2), 2, controller=ConstantStep(0.1))
    return JointProcess([ode, identity(StaticProcess(1, 2)), identity(StaticProcess(2, 4))])


def of_joint(mean, std):
    static = [of_static(mean[:, part], std[:, part]).static for part in (slice(2, 3), slice(3, 5))]
    return Encoding(q0=Independent(Normal(mean[:, :2], std[:, :2]), 1), static=torch.cat(static, -1))


def test_joint_contract():
    # Both static parts read the whole description: each looks at its own features.
    process = joint()
    with torch.no_grad():
        for part, columns in zip(list(process.parts)[1:], ([0, 1], [2, 3, 4, 5]), strict=True):
            part.feature_size = 6
            weight = torch.zeros(len(columns), 6)
            weight[range(len(columns)), columns] = 1.0
            part.net.layers[0].weight = torch.nn.Parameter(weight)
    check_process(process, encoding=of_joint)


def test_parts_are_drawn_as_by_themselves_and_their_divergences_keep_their_names():
    process = JointProcess([ODEProcess(LinearField(2), 2), identity(CategoricalProcess(3, 3))]).double()
    mean = torch.tensor([[0.3, -0.2]], dtype=F64)
    logits = torch.tensor([[1.0, 0.0, -1.0]], dtype=F64)
    encoding = Encoding(q0=Independent(Normal(mean, 0.5), 1), static=logits)
    t0, ts = torch.zeros(1, dtype=F64), torch.tensor([[0.0, 1.0]], dtype=F64)
    latent = process.posterior(encoding, t0, ts, 5)
    assert latent.zs.shape == (5, 1, 2, 5)
    assert set(latent.kl) == set(latent.log_terms) == {"z0", "class"}
    q = logits.softmax(-1)
    torch.testing.assert_close(latent.kl["class"], (q * (q.log() + math.log(3))).sum(-1))
    expected = kl_divergence(encoding.q0, Independent(Normal(torch.zeros(2, dtype=F64), 1.0), 1))
    torch.testing.assert_close(latent.kl["z0"], expected)
    torch.testing.assert_close(latent.kl_by_dimension.sum(-1), expected)
    assert process.slices == (slice(0, 2), slice(2, 5))


def test_divergences_of_one_name_are_added_whatever_is_known_of_them():
    class Fixed(StaticProcess):
        def __init__(self, log_terms, kl):
            super().__init__(1, 2)
            self.latent = LatentSample(torch.zeros(2, 1, 1, 1), log_terms, kl)

        def posterior(self, *args, **kwargs):
            return self.latent

    ratio, exact = {"static": torch.tensor([[-1.0], [-3.0]])}, {"static": torch.tensor([2.5])}
    for parts, log_terms, kl in (
        ((Fixed(ratio, {}), Fixed(ratio, {})), [-2.0, -6.0], None),
        ((Fixed(ratio, exact), Fixed(ratio, {})), [-2.0, -6.0], 4.5),
        ((Fixed({}, exact), Fixed(ratio, {})), None, 4.5),
    ):
        latent = JointProcess(parts).posterior(Encoding(), torch.zeros(1), torch.zeros(1, 1), 2)
        assert (latent.log_terms["static"].flatten().tolist() if latent.log_terms else None) == log_terms
        assert (latent.kl["static"].item() if latent.kl else None) == kl


def test_a_class_is_drawn_as_often_as_it_is_probable_and_its_gradient_is_that_of_the_relaxation():
    process = identity(CategoricalProcess(3, 3, temperature=0.5)).double()
    logits = torch.tensor([[1.0, 0.0, -1.0]], dtype=F64, requires_grad=True)
    once = torch.zeros(1, dtype=F64)
    zs = process.posterior(Encoding(static=logits), once, once[:, None], 20_000, torch.Generator().manual_seed(0)).zs
    shares = zs.detach().mean((0, 1, 2))
    torch.testing.assert_close(shares, logits.softmax(-1)[0].detach(), rtol=0, atol=0.015)
    (gradient,) = torch.autograd.grad(zs[..., 0].mean(), logits)
    q = logits.softmax(-1)
    (exact,) = torch.autograd.grad(q[0, 0], logits)
    # Biased, and of the right direction and size.
    assert torch.nn.functional.cosine_similarity(gradient, exact).item() > 0.95
    assert 0.5 < (gradient.norm() / exact.norm()).item() < 2.0


def test_parts_that_need_the_same_are_refused():
    with pytest.raises(ValueError, match="only one part of a JointProcess can be made of q0"):
        JointProcess([ODEProcess(LinearField(1), 1), ODEProcess(LinearField(2), 2)])
    with pytest.raises(ValueError, match="static comes from"):
        JointEncoder([SummaryEncoder(GRUEncoder(2, 3)), SummaryEncoder(GRUEncoder(2, 3))])
    with pytest.raises(ValueError, match="provides q0"):
        SummaryEncoder(SiteEncoder(2, 3))
    with pytest.raises(ValueError, match="SummaryEncoder"):
        StaticProcess(2, 4).posterior(Encoding(), torch.zeros(1), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="feature_size=4; the encoder gives a description of size 3"):
        StaticProcess(2, 4).posterior(Encoding(static=torch.zeros(1, 3)), torch.zeros(1), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="at least 2"):
        CategoricalProcess(1, 4)
    with pytest.raises(ValueError, match="above 0"):
        CategoricalProcess(2, 4, temperature=0.0)
    with pytest.raises(ValueError, match="at least one part"):
        JointProcess([])
    with pytest.raises(ValueError, match="needs \\['static'\\] from its encoder"):
        LatentVAE(CHANNELS, GRUEncoder(2, 3), StaticProcess(3, 4), Gaussian(3, 2))


@pytest.mark.parametrize("objective", [ELBO(), IWAE(2)])
def test_a_model_with_three_kinds_of_latents_keeps_the_contract(objective):
    encoder = JointEncoder([SiteEncoder(2, 2, (4,)), SummaryEncoder(GRUEncoder(2, 3, 4, head_hidden=(4,)))])
    moving = LinearGaussianProcess(Matern(1.5, lengthscale=[0.3, 1.0]))
    process = JointProcess([moving, StaticProcess(2, 6), CategoricalProcess(3, 6)])
    check_model(LatentVAE(CHANNELS, encoder, process, Gaussian(7, 2), objective), example_window(2))


def test_a_planted_level_and_a_planted_kind_are_found_and_not_in_what_moves():
    """Series that turn alike, and differ by a level and a kind."""
    generator = torch.Generator().manual_seed(0)
    ts = torch.rand(48, 10, generator=generator, dtype=F64).sort(-1).values
    level, kind = torch.randn(48, generator=generator, dtype=F64), torch.arange(48) % 2
    angle = 6.0 * ts + 6.3 * torch.rand(48, 1, generator=generator, dtype=F64)
    values = torch.stack([level[:, None] + 0.5 * angle.cos(), 2.0 * kind[:, None] - 1 + 0.5 * angle.sin()], -1)
    values = values + 0.05 * torch.randn(values.shape, generator=generator, dtype=F64)
    batch = IrregularBatch(ts, values, torch.ones_like(values, dtype=torch.bool))
    torch.manual_seed(0)
    turning = LinearField(2, matrix=[[0.0, 6.0], [-6.0, 0.0]]).requires_grad_(False)
    process = JointProcess(
        [
            ODEProcess(turning, 2, solver=RK4(), controller=ConstantStep(0.25)),
            StaticProcess(1, 16),
            CategoricalProcess(2, 16),
        ]
    )
    encoder = JointEncoder(
        [GRUEncoder(2, 2, 16, head_hidden=(16,)), SummaryEncoder(GRUEncoder(2, 8, 16, head_hidden=(16,)))]
    )
    model = LatentVAE(CHANNELS, encoder, process, Gaussian(5, 2), ELBO(beta=Anneal(100))).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(200):
        optimiser.zero_grad()
        model.loss(Window(batch, batch), generator=generator, step=step).total.backward()
        optimiser.step()
    encoding = model.encoder(batch)
    static = process.parts[1].net(encoding.static)[:, 0].detach()
    found = process.parts[2].summary(encoding).argmax(-1)
    assert abs(torch.corrcoef(torch.stack([static, level]))[0, 1]) > 0.9
    assert max((found == kind).double().mean(), (found != kind).double().mean()) > 0.95
    for turned in encoding.q0.mean.detach().mT:
        assert abs(torch.corrcoef(torch.stack([turned, level]))[0, 1]) < 0.4


def test_a_part_is_not_moved_by_how_far_another_must_go():
    moving = SDEProcess(MLPSDEField(2), 2, 0, dt=0.05)
    process = JointProcess([moving, StaticProcess(2, feature_size=3)])
    t0 = torch.zeros(3)
    near, far = (
        process.prior(t0, torch.tensor([[0.5, end]]).expand(3, -1), 2, torch.Generator().manual_seed(0)).zs[:, :, 0]
        for end in (1.0, 7.0)
    )
    torch.testing.assert_close(near, far)


def test_a_start_without_a_closed_form_is_priced_by_its_samples():
    class Heavy(GRUEncoder):
        def forward(self, batch):
            return Encoding(q0=Independent(StudentT(torch.full((len(batch.times), 2), 8.0, dtype=F64)), 1))

    process = ODEProcess(LinearField(2), 2)
    model = LatentVAE(CHANNELS, Heavy(2, 2), process, Gaussian(2, 2), ELBO(num_samples=200)).double()
    parts = model.loss(example_window(2), generator=torch.Generator().manual_seed(0)).parts
    assert 0.0 < float(parts["kl"]) < 1.0
    assert float(parts["bound"]) == pytest.approx(float(parts["log_likelihood"] - parts["kl"]), rel=1e-4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ODEProcess(MLPField(4), 2),
        lambda: SDEProcess(MLPSDEField(4), 2, 3),
        lambda: MatchedSDEProcess(MLPSDEField(4), 2, 3),
    ],
)
def test_a_field_moves_a_state_of_the_latent_size(build):
    with pytest.raises(ValueError, match="has state_size=4, and latent_size is 2"):
        build()
