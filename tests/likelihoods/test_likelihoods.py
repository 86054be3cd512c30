import math

import pytest
import torch
from torch import distributions as td

from ctdyn import likelihoods
from ctdyn.data.channels import Channel
from ctdyn.likelihoods import (
    Bernoulli,
    Categorical,
    FixedScale,
    Gaussian,
    GaussianMixture,
    HeteroscedasticScale,
    Laplace,
    LearnedScale,
    Likelihood,
    LogNormal,
    NegativeBinomial,
    PerKind,
    Poisson,
    StudentT,
    ZeroInflated,
    atoms,
    entry_log_prob,
    masked_log_prob,
)
from ctdyn.testing import check_likelihood


CHANNELS = [Channel("a"), Channel("on", kind="binary"), Channel("b")]
PARTS = {
    "Gaussian": [
        lambda: Gaussian(3, 2),
        lambda: Gaussian(3, 2, hidden=(4,), scale=FixedScale(0.3)),
        lambda: Gaussian(3, 2, scale=HeteroscedasticScale(hidden=(4,))),
    ],
    "StudentT": [lambda: StudentT(3, 2), lambda: StudentT(3, 2, hidden=(4,), scale=HeteroscedasticScale())],
    "Bernoulli": [lambda: Bernoulli(3, 2, hidden=(4,))],
    "Categorical": [lambda: Categorical(3, 2, num_classes=4)],
    "GaussianMixture": [
        lambda: GaussianMixture(3, 2, num_components=3, scale=LearnedScale(0.3)),
        lambda: GaussianMixture(3, 1, num_components=2, hidden=(4,), scale=HeteroscedasticScale()),
    ],
    "Laplace": [lambda: Laplace(3, 2, hidden=(4,)), lambda: Laplace(3, 2, scale=HeteroscedasticScale())],
    "LogNormal": [lambda: LogNormal(3, 2, hidden=(4,)), lambda: LogNormal(3, 2, scale=FixedScale(0.3))],
    "NegativeBinomial": [lambda: NegativeBinomial(3, 2, hidden=(4,))],
    "Poisson": [lambda: Poisson(3, 2, hidden=(4,))],
    "ZeroInflated": [
        lambda: ZeroInflated(NegativeBinomial(3, 2), 3),
        lambda: ZeroInflated(Poisson(3, 2), 3, hidden=(4,)),
        lambda: ZeroInflated(LogNormal(3, 2), 3),
    ],
    "PerKind": [lambda: PerKind(CHANNELS, {"binary": Bernoulli(3, 1), "real": StudentT(3, 2)})],
}


def test_every_exported_likelihood_is_checked():
    exported = {name: getattr(likelihoods, name) for name in likelihoods.__all__}
    families = {name for name, x in exported.items() if isinstance(x, type) and issubclass(x, Likelihood)}
    assert families - {"Likelihood"} == set(PARTS)


@pytest.mark.parametrize("build", [build for builds in PARTS.values() for build in builds])
def test_contract(build):
    check_likelihood(build(), 3)


def _states(num_times: int = 4, latent: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 5, num_times, latent, generator=generator, dtype=torch.float64)
    return z, torch.arange(num_times, dtype=torch.float64).expand(5, num_times)


def test_masked_log_prob_is_the_sum_of_the_observed_entries_in_nats():
    loc = torch.randn(2, 3, 4, 2, dtype=torch.float64)
    values, mask = torch.randn(3, 4, 2, dtype=torch.float64), torch.rand(3, 4, 2) < 0.5
    got = masked_log_prob(td.Normal(loc, 0.3), values, mask)
    z = (values - loc) / 0.3
    terms = -0.5 * z.square() - math.log(0.3) - 0.5 * math.log(2 * math.pi)
    expected = (terms * mask).sum((-1, -2))
    assert got.shape == (2, 3)
    torch.testing.assert_close(got, expected)


def test_what_stands_under_the_mask_reaches_neither_value_nor_gradient():
    loc = torch.zeros(1, 2, 1, dtype=torch.float64, requires_grad=True)
    values = torch.tensor([[[1.0], [1e300]]], dtype=torch.float64)
    mask = torch.tensor([[[True], [False]]])
    log_prob = entry_log_prob(td.Normal(loc, 1.0), values, mask)
    assert log_prob[0, 1, 0] == 0
    log_prob.sum().backward()
    torch.testing.assert_close(loc.grad, torch.tensor([[[1.0], [0.0]]], dtype=torch.float64))


def test_a_known_error_adds_in_quadrature():
    z, ts = _states()
    likelihood = Gaussian(3, 2, scale=FixedScale(0.3)).double()
    noise = torch.full((5, 4, 2), 0.4, dtype=torch.float64)
    torch.testing.assert_close(likelihood(z, ts, noise).stddev, torch.full((2, 5, 4, 2), 0.5, dtype=torch.float64))
    torch.testing.assert_close(likelihood(z, ts).stddev, torch.full((2, 5, 4, 2), 0.3, dtype=torch.float64))


@pytest.mark.parametrize("scale", [LearnedScale(initial=0.7, floor=0.2), HeteroscedasticScale(initial=0.7, floor=0.2)])
def test_a_scale_starts_where_it_says_and_never_falls_below_its_floor(scale):
    likelihood = Gaussian(3, 2, scale=scale).double()
    ts = torch.zeros(1, 1, dtype=torch.float64)
    for parameter in likelihood.scale.parameters():
        if parameter.dim() == 1 and isinstance(scale, HeteroscedasticScale):
            parameter.data.zero_()
    start = likelihood(torch.zeros(1, 1, 3, dtype=torch.float64), ts).stddev
    torch.testing.assert_close(start, torch.full_like(start, 0.7))
    for parameter in likelihood.scale.parameters():
        parameter.data.fill_(-50.0)
    collapsed = likelihood(torch.ones(1, 1, 3, dtype=torch.float64), ts).stddev
    torch.testing.assert_close(collapsed, torch.full_like(collapsed, 0.2))


def test_a_heteroscedastic_scale_depends_on_the_state():
    z, ts = _states()
    assert Gaussian(3, 2, scale=HeteroscedasticScale()).double()(z, ts).stddev.std() > 1e-3


def test_student_t_has_heavier_tails_than_a_gaussian_and_tends_to_it():
    z, ts = _states()
    student = StudentT(3, 2, scale=FixedScale(0.5), initial_df=4.0).double()
    gaussian = Gaussian(3, 2, scale=FixedScale(0.5)).double()
    gaussian.mean.load_state_dict(student.mean.state_dict())
    far = gaussian(z, ts).mean + 5.0
    assert (student(z, ts).log_prob(far) > gaussian(z, ts).log_prob(far)).all()
    student.log_df.data.fill_(math.log(1e8))
    torch.testing.assert_close(student(z, ts).log_prob(far - 4.5), gaussian(z, ts).log_prob(far - 4.5))


def test_per_kind_routes_the_columns_by_kind():
    channels = [Channel("a"), Channel("on", kind="binary"), Channel("b"), Channel("off", kind="binary")]
    real, binary = Gaussian(3, 2, scale=FixedScale(0.5)), Bernoulli(3, 2)
    joint = PerKind(channels, {"binary": binary, "real": real}).double()
    z, ts = _states()
    noise = torch.rand(5, 4, 4, dtype=torch.float64)
    together = joint(z, ts, noise)
    apart = [real(z, ts, noise[..., [0, 2]]), binary(z, ts)]
    values = torch.tensor([0.3, 1.0, -0.2, 0.0], dtype=torch.float64).expand(5, 4, 4)
    for name in ("mean", "variance"):
        got = getattr(together, name)
        torch.testing.assert_close(got[..., [0, 2]], getattr(apart[0], name))
        torch.testing.assert_close(got[..., [1, 3]], getattr(apart[1], name))
    log_prob = together.log_prob(values)
    torch.testing.assert_close(log_prob[..., [0, 2]], apart[0].log_prob(values[..., [0, 2]]).expand(2, 5, 4, 2))
    torch.testing.assert_close(log_prob[..., [1, 3]], apart[1].log_prob(values[..., [1, 3]]))
    draws = together.sample(torch.Size((7,)))
    assert draws.shape == (7, 2, 5, 4, 4)
    assert set(draws[..., [1, 3]].unique().tolist()) <= {0.0, 1.0}


def test_default_chooses_by_kind():
    assert isinstance(PerKind.default(3, [Channel("a"), Channel("b")]), Gaussian)
    assert isinstance(PerKind.default(3, [Channel("a", kind="binary")]), Bernoulli)
    assert isinstance(PerKind.default(3, [Channel("a"), Channel("b", kind="binary")]), PerKind)
    assert isinstance(PerKind.default(3, [Channel("a", kind="count")]), NegativeBinomial)
    assert isinstance(PerKind.default(3, [Channel("a", kind="positive")]), LogNormal)
    rain = PerKind.default(3, [Channel("a", kind="nonnegative")], (4,))
    assert isinstance(rain, ZeroInflated)
    assert isinstance(rain.family, LogNormal)
    assert rain.kinds == {"nonnegative"}
    with pytest.raises(ValueError, match="no default family for channels of kind"):
        PerKind.default(3, [Channel("a", kind="categorical")])


def test_atoms_are_told_from_densities():
    channels = [Channel("a"), Channel("rain", kind="nonnegative"), Channel("b")]
    found = PerKind.default(3, channels)(torch.zeros(2, 5, 3), torch.zeros(5))
    values = torch.tensor([0.0, 0.0, 1.0]).repeat(5, 1)
    assert atoms(found, values).tolist() == [[False, True, False]] * 5
    assert not atoms(found, values + 1.0).any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PerKind([Channel("a")], {"binary": Bernoulli(3, 1)}), "each kind of channel needs its family"),
        (lambda: PerKind([Channel("a")], {"real": Gaussian(3, 2)}), "1 channels are of kind 'real'"),
        (lambda: FixedScale(0.0), "FixedScale"),
        (lambda: LearnedScale(initial=0.1, floor=0.2), "above its floor"),
        (lambda: HeteroscedasticScale(floor=0.0), "must be above 0"),
        (lambda: StudentT(3, 1, initial_df=2.0), "above 2"),
        (lambda: NegativeBinomial(3, 1, initial_concentration=0.0), "above 0"),
        (lambda: GaussianMixture(3, 1, num_components=0), "at least 1"),
        (lambda: Categorical(3, 1, num_classes=1), "at least 2"),
    ],
)
def test_impossible_choices_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
