"""What is typed by mistake is answered where it is given, by what was given, what was expected and the cure."""

import jaxtyping
import pytest
import torch
from torch.distributions import Normal

from ctdyn.cells import CfCCell, GRUDCell, LTCCell, ODERNNCell
from ctdyn.data import Extrapolate, IrregularBatch, Standardize, Window
from ctdyn.data.channels import Channel
from ctdyn.encoders import (
    CDEEncoder,
    CellEncoder,
    GRUEncoder,
    JointEncoder,
    ODERNNEncoder,
    ReverseGRUEncoder,
    SiteEncoder,
    StartEncoder,
    SummaryEncoder,
)
from ctdyn.fields import MLPCDEField, MLPField, MLPSDEField
from ctdyn.likelihoods import (
    Categorical,
    FixedScale,
    Gaussian,
    Likelihood,
    LogNormal,
    PerKind,
    Poisson,
    PoissonTimes,
    StudentT,
    ZeroInflated,
)
from ctdyn.linear import Matern, Oscillators
from ctdyn.models import (
    ELBO,
    IWAE,
    LS4,
    Anneal,
    CapacityELBO,
    ExpectationMaximisation,
    FilteringModel,
    HoldLast,
    InformationScore,
    KalmanVAE,
    KoopmanVAE,
    LatentODE,
    LatentSDE,
    LatentVAE,
    LinearGaussianSSM,
    LinearPriorPenalty,
    MarkovianGPVAE,
    MaternGP,
    Predictive,
    Recalibrated,
    Reencoded,
    Refined,
    RepresentationTerm,
    SequenceModel,
    SideBySide,
    Supervision,
    VAMPScore,
)
from ctdyn.paths import LinearPath
from ctdyn.processes import JointProcess, LinearGaussianProcess, ODEProcess, SDEProcess, StaticProcess


CHANNELS = (Channel("x"),)
NAMED = (LatentODE, LatentSDE, LS4, MarkovianGPVAE, KalmanVAE, KoopmanVAE, LinearGaussianSSM)
ODE = {"encoder": GRUEncoder(1, 2), "process": ODEProcess(MLPField(2), 2), "likelihood": Gaussian(2, 1)}
JOINT = JointProcess([ODEProcess(MLPField(2), 2), StaticProcess(3, feature_size=4)])


@pytest.fixture(autouse=True)
def _without_runtime_types(monkeypatch):
    """What a user sees: the types that the tests check at run time are not checked outside of them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def _batch(*batch, length=3, **more):
    times = torch.linspace(0.0, 1.0, length).expand(*batch, length)
    values = torch.sin(times).unsqueeze(-1)
    return IrregularBatch(times, values, torch.ones_like(values, dtype=torch.bool), **more)


@pytest.mark.parametrize("levels", [[5, 50, 95], [-0.5], [float("nan")]])
def test_levels_of_quantiles_are_probabilities(levels):
    predictive = Predictive(Normal(torch.zeros(4, 1, 1), 1.0))
    with pytest.raises(ValueError, match=r"levels are probabilities in \[0, 1\], such as 0.05 for 5 %"):
        predictive.quantile(levels)


@pytest.mark.parametrize("model", NAMED)
@pytest.mark.parametrize("channels", [["x"], "x", [], Channel("x")])
def test_channels_are_looked_at_before_parts_are_built_for_them(model, channels):
    with pytest.raises(TypeError, match="needs the channels that it models"):
        model(channels)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (
            {"likelihood": Gaussian(5, 1)},
            ValueError,
            "Gaussian decodes a latent state of size 5, .*ODEProcess has size 2",
        ),
        (
            {"likelihood": PerKind(CHANNELS, {"real": Gaussian(5, 1)})},
            ValueError,
            "PerKind decodes a latent state of size 5",
        ),
        ({"encoder": GRUEncoder(1, 3)}, ValueError, "ODEProcess needs q0 of size 2, and GRUEncoder gives it in size 3"),
        (
            {"encoder": ReverseGRUEncoder(1, 2, 3), "process": SDEProcess(MLPSDEField(2), 2, 4)},
            ValueError,
            "needs context of size 4, .* in size 3; build both with one context_size",
        ),
        (
            {"encoder": SiteEncoder(1, 3), "process": LinearGaussianProcess(Matern(1.5, lengthscale=[1.0, 2.0]))},
            ValueError,
            "needs sites of size 2",
        ),
        (
            {"encoder": JointEncoder([GRUEncoder(1, 2), SummaryEncoder(GRUEncoder(1, 3))]), "process": JOINT},
            ValueError,
            "JointProcess needs static of size 4, and JointEncoder gives it in size 6",
        ),
        ({"encoder": GRUEncoder(2, 2)}, ValueError, r"GRUEncoder reads 2 .*\['x'\]; build it with num_channels=1"),
        ({"encoder": StartEncoder(CellEncoder(GRUDCell(3, 2)), 5, 2)}, ValueError, "StartEncoder reads 3 channels"),
        (
            {"encoder": CDEEncoder(1, 3, MLPCDEField(3, 3)), "process": StaticProcess(2, feature_size=4)},
            ValueError,
            "StaticProcess needs static of size 4, and CDEEncoder gives it in size 3",
        ),
        ({"times": PoissonTimes(3)}, ValueError, "PoissonTimes depends on a latent state of size 3, .* has size 2"),
        ({"times": True}, TypeError, r"such as PoissonTimes\(latent_size\); got True"),
        ({"times": PoissonTimes}, TypeError, "got the class PoissonTimes: call it"),
        ({"objective": ELBO}, TypeError, r"such as ELBO\(\); got the class ELBO: call it"),
        ({"encoder": GRUEncoder}, TypeError, "got the class GRUEncoder"),
        ({"likelihood": "gaussian"}, TypeError, "must be an instance of Likelihood, .*; got 'gaussian'"),
    ],
)
def test_parts_that_do_not_fit(parts, error, message):
    LatentVAE(CHANNELS, **ODE)
    with pytest.raises(error, match=message):
        LatentVAE(CHANNELS, **{**ODE, **parts})


@pytest.mark.parametrize(
    ("kind", "build", "cure"),
    [
        ("real", lambda n: Poisson(2, n), 'kinds={"x": "count"}; .*Gaussian, GaussianMixture, Laplace, StudentT'),
        ("real", lambda n: ZeroInflated(LogNormal(2, n), 2), 'kinds={"x": "nonnegative"}; .*Gaussian'),
        ("real", lambda n: ZeroInflated(Gaussian(2, n), 2), 'kinds={"x": "nonnegative"}; .*Gaussian'),
        ("real", lambda n: Categorical(2, n, num_classes=3), 'kinds={"x": "binary"} or kinds={"x": "categorical"}'),
        ("categorical", lambda n: Gaussian(2, n), "its likelihood is one of Categorical, beside others in a PerKind"),
        ("count", lambda n: StudentT(2, n), "one of NegativeBinomial, Poisson"),
    ],
)
def test_a_likelihood_suits_the_kind_of_its_channel(kind, build, cure):
    channels = (Channel("x", kind=kind),)
    with pytest.raises(ValueError, match=rf"cannot model channel 'x', which is of kind '{kind}'.*{cure}"):
        LatentVAE(channels, **{**ODE, "likelihood": build(1)})
    with pytest.raises(ValueError, match=rf"cannot model channel 'x', which is of kind '{kind}'"):
        FilteringModel(channels, GRUDCell(1, 2), build(1))
    mixed = (Channel("y", kind="positive"), *channels)
    likelihood = PerKind(mixed, {"positive": Gaussian(2, 1), kind: build(1)})
    with pytest.raises(ValueError, match=rf"cannot model channel 'x', which is of kind '{kind}'"):
        LatentODE(mixed, 2, likelihood=likelihood)


def test_a_likelihood_of_your_own_is_believed():
    class Own(Gaussian):
        kinds = Likelihood.kinds

    assert LatentODE((Channel("x", kind="count"),), 2, likelihood=Own(2, 1)).likelihood.num_channels == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: LatentODE(CHANNELS, latent_siz=2),
            "LatentODE.. has no option 'latent_siz'; did you mean latent_size",
        ),
        (lambda: LatentODE(CHANNELS, rtol=1e-3), r"is here controller=PIDController\(rtol="),
        (lambda: ODEProcess(MLPField(2), latentsize=2), "did you mean latent_size"),
        (lambda: GRUEncoder(1, 2, state_size=3), "GRUEncoder.. has no option 'state_size'; did you mean static_size"),
        (lambda: Gaussian(2, 1, scales=None), "Gaussian.. has no option 'scales'; did you mean scale"),
        (lambda: FixedScale(values=2.0), "did you mean value"),
        (lambda: ELBO(betas=2.0), "did you mean beta"),
        (lambda: Extrapolate(cuts=3.0), "did you mean cut"),
        (lambda: Standardize(centre="mean"), "did you mean center"),
        (lambda: Gaussian(2), "Gaussian.. missing a required argument: 'num_channels'; its arguments are latent_size,"),
        (lambda: Gaussian(2, 1, (), None, 3), "Gaussian.. too many positional arguments; its arguments are"),
    ],
)
def test_misspelt_arguments(build, message):
    with pytest.raises(TypeError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: KoopmanVAE(CHANNELS, 1, terms=Supervision([0])),
            "terms must be a list of LossTerm, .* a Superv",
        ),
        (
            lambda: KoopmanVAE(CHANNELS, 1, terms=[Supervision]),
            r"terms.0. must be .*, such as Supervision\(\[0\]\)",
        ),
        (lambda: Recalibrated(MaternGP), "model must be an instance of Model, .*the class MaternGP: call it"),
        (lambda: SideBySide(MaternGP(CHANNELS)), "models must be a list of Model, .*; got a MaternGP"),
        (
            lambda: SideBySide(MaternGP([one]) for one in CHANNELS),
            "models must be a list of Model, .*; got a generator",
        ),
        (lambda: ODEProcess(MLPField, 2), "ODEProcess needs a VectorField, .* got the class MLPField: call it"),
        (lambda: LinearGaussianProcess(Matern), "needs LinearDynamics, .* got the class Matern: call it"),
        (lambda: Refined(KoopmanVAE), "Refined takes a model .* got the class KoopmanVAE: call it"),
        (lambda: JointProcess(StaticProcess(2, 3)), "parts must be a list of LatentProcess"),
        (lambda: JointEncoder(GRUEncoder(1, 2)), "parts must be a list of Encoder"),
        (lambda: CellEncoder(GRUEncoder(1, 2)), "cell must be an instance of Cell, .* got a GRUEncoder"),
        (
            lambda: ODERNNEncoder(1, 2, cell=GRUDCell),
            "must be an instance of Cell, .* the class GRUDCell: call it",
        ),
        (lambda: SummaryEncoder(GRUEncoder), "encoder must be an instance of Encoder"),
        (lambda: StartEncoder(GRUDCell(1, 2), 3, 2), "encoder must be an instance of Encoder, .* got a GRUDCell"),
        (lambda: CDEEncoder(1, 2, MLPField(2)), "field must be an instance of CDEField, .* got a MLPField"),
        (lambda: CDEEncoder(1, 2, MLPCDEField(2, 3), LinearPath), "control must be an instance of Control"),
        (lambda: RepresentationTerm(VAMPScore, 0.1), "score must be .*RepresentationScore, .* VAMPScore: call it"),
        (lambda: Supervision(0), r"dimensions must be a list of .*, such as \[0\]; got 0"),
        (lambda: ELBO(beta=Anneal), r"beta must be .*, such as 1.0 or Anneal\(steps\); got the class Anneal"),
        (lambda: CapacityELBO(3.0), "capacities must be an instance of Mapping"),
        (lambda: LatentODE(CHANNELS, 2, hidden=64), r"a sequence of their sizes, \(64,\) for one .*; got 64"),
        (lambda: LatentODE(CHANNELS, 2, decoder_hidden=64), "a sequence of their sizes"),
        (lambda: KoopmanVAE(CHANNELS, 1, encoder_hidden=64), "a sequence of their sizes"),
        (lambda: CfCCell(1, 4, hidden=64), "a sequence of their sizes"),
        (lambda: FilteringModel(CHANNELS, GRUDCell), "cell must be an instance of Cell"),
        (lambda: FilteringModel(CHANNELS, GRUDCell(1, 2), Gaussian), "likelihood must be an instance of Likelihood"),
        (lambda: SequenceModel(CHANNELS, GRUEncoder, Gaussian(2, 1)), "encoder must be an instance of Encoder"),
        (lambda: SequenceModel(CHANNELS, GRUEncoder(1, 1), None), "likelihood must be an instance .*; got None"),
    ],
)
def test_classes_and_single_parts_are_no_instances_and_lists(build, message):
    with pytest.raises(TypeError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LatentODE(CHANNELS, 2.5), "latent_size must be a whole number; got 2.5"),
        (lambda: LS4(CHANNELS, depth=1.5), "depth must be a whole number; got 1.5"),
        (lambda: LS4(CHANNELS, input_size="1"), "input_size must be a whole number; got '1'"),
        (lambda: KalmanVAE(CHANNELS, state_size=True), "state_size must be a whole number; got True"),
        (lambda: GRUEncoder(1, 2, hidden_size=8.0), "hidden_size must be a whole number; got 8.0"),
        (lambda: LinearGaussianSSM(CHANNELS, latent_size=2.5), "latent_size must be a whole number; got 2.5"),
        (lambda: KoopmanVAE(CHANNELS, pairs=True), "pairs must be a whole number; got True"),
        (lambda: IWAE(float("nan")), "num_samples must be a whole number; got nan"),
        (lambda: LTCCell(2, 8.5), "units must be a whole number; got 8.5"),
        (lambda: LatentODE(CHANNELS, hidden=iter((8, 2))), "given as a sequence of their sizes"),
        (lambda: LatentODE(CHANNELS, hidden=(8, 2.5)), "hidden size of .8, 2.5. must be a whole number; got 2.5"),
    ],
)
def test_sizes_are_whole_numbers(build, message):
    with pytest.raises(TypeError, match=message):
        build()


def test_a_start_is_made_of_a_description_of_its_size():
    for reader in (CellEncoder(GRUDCell(1, 2)), CDEEncoder(1, 3, MLPCDEField(3, 3))):
        with pytest.raises(ValueError, match=r"by 3 numbers, .*description_size=2; pass description_size=3"):
            StartEncoder(reader, 2, 4)


def test_parts_of_a_joint_encoder_read_the_same_channels():
    with pytest.raises(ValueError, match=r"built for num_channels \[1, 2\]"):
        JointEncoder([GRUEncoder(1, 2), SummaryEncoder(GRUEncoder(2, 2))])


def test_a_sequence_model_reads_its_channels():
    with pytest.raises(ValueError, match=r"GRUEncoder reads 2 channels, and the model has 1"):
        SequenceModel.classifier(CHANNELS, GRUEncoder(2, 3), num_classes=3)


@pytest.mark.parametrize("where", ["alone", "beside others"])
def test_classes_that_a_likelihood_does_not_know(where):
    channels = (Channel("stage", kind="categorical"),)
    likelihood = Categorical(2, 1, num_classes=3)
    if where == "beside others":
        channels = (Channel("y"), *channels)
        likelihood = PerKind(channels, {"real": Gaussian(2, 1), "categorical": likelihood})
    times, values = torch.linspace(0.0, 1.0, 4), torch.tensor([0.0, 2.0, 1.0, 3.0])[:, None].expand(4, len(channels))
    mask = torch.ones_like(values, dtype=torch.bool)
    model = LatentODE(channels, 2, likelihood=likelihood)
    for hidden in (True, False):
        mask[-1] = not hidden
        batch = IrregularBatch(times, values, mask)
        if hidden:
            assert model.loss(Window(batch, batch)).total.isfinite()
            continue
        with pytest.raises(ValueError, match=r"a value of 3 was observed, and Categorical\(num_classes=3\) .* 0 to 2"):
            model.loss(Window(batch, batch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fitting": "em"}, r"fitting must be an instance of Fitting, .*; got 'em'"),
        ({"fitting": ExpectationMaximisation}, "the class ExpectationMaximisation: call it"),
        ({"dynamics": "matern"}, r"dynamics must be an instance of LinearDynamics, .*; got 'matern'"),
    ],
)
def test_how_a_state_space_model_is_fitted(options, message):
    with pytest.raises(TypeError, match=message):
        LinearGaussianSSM(CHANNELS, **options)


def test_expectation_maximisation_says_what_it_can_fit():
    window = Window(_batch(4, length=12), _batch(4, length=12))
    with pytest.raises(ValueError, match=r"fitting=MaximumLikelihood\(\) of a model\), or .* Matern\(0.5\)"):
        LinearGaussianSSM(CHANNELS, fitting=ExpectationMaximisation(2)).fit_exact([window])
    LinearGaussianSSM(CHANNELS, dynamics=Matern(0.5), fitting=ExpectationMaximisation(2)).fit_exact([window])


def test_parts_of_a_joint_process_fit_each_by_itself():
    encoder = JointEncoder([GRUEncoder(1, 2), SummaryEncoder(GRUEncoder(1, 2))])
    assert LatentVAE(CHANNELS, encoder, JOINT, Gaussian(5, 1)).process.latent_size == 5


@pytest.mark.parametrize("wrapper", [Refined, lambda model: Reencoded(model, every=1.0)])
@pytest.mark.parametrize("model", [LinearGaussianSSM(CHANNELS), Refined(LatentODE(CHANNELS)), LatentODE])
def test_only_latent_models_are_wrapped(wrapper, model):
    with pytest.raises(TypeError, match=r"takes a model of an encoder, a process and a likelihood"):
        wrapper(model)


@pytest.mark.parametrize(
    ("model", "size", "dynamics"),
    [
        (MarkovianGPVAE, "latent_size", Matern(1.5, lengthscale=[1.0, 2.0])),
        (KoopmanVAE, "pairs", Oscillators([2.0], decay=0.1)),
        (LinearGaussianSSM, "latent_size", Oscillators([2.0], decay=0.1)),
    ],
)
def test_dynamics_of_your_own_have_a_size(model, size, dynamics):
    model(CHANNELS, dynamics=dynamics)
    with pytest.raises(ValueError, match=rf"{model.__name__} takes {size}, .* got both, {size}=3 and "):
        model(CHANNELS, dynamics=dynamics, **{size: 3})


def test_a_spectrum_to_be_read_needs_oscillators():
    with pytest.raises(TypeError, match=r"dynamics must be .*Oscillators.*Matern"):
        KoopmanVAE(CHANNELS, dynamics=Matern(1.5))


@pytest.mark.parametrize(
    ("model", "reads"),
    [
        (LatentODE(CHANNELS, 2), {"inputs"}),  # Its field refuses inputs that it was not built for.
        (LatentODE(CHANNELS, 2, input_size=1, static_size=1), {"inputs", "static"}),
        (LS4(CHANNELS, 2, 4, static_size=1), {"inputs", "static"}),
        (KoopmanVAE(CHANNELS, 1), set()),
        (MarkovianGPVAE(CHANNELS, 1), set()),
        (KalmanVAE(CHANNELS), set()),
        (LinearGaussianSSM(CHANNELS), set()),
        (MaternGP(CHANNELS), set()),
        (HoldLast(CHANNELS), set()),
        (Recalibrated(MaternGP(CHANNELS)), set()),
        (SideBySide([MaternGP(CHANNELS)]), set()),
        (Refined(LatentODE(CHANNELS, 2, static_size=1)), {"inputs", "static"}),
        (Reencoded(KoopmanVAE(CHANNELS, 1), every=1.0), set()),
        (FilteringModel(CHANNELS, GRUDCell(1, 2)), set()),
        (FilteringModel(CHANNELS, ODERNNCell(1, 2), static_size=1), {"inputs", "static"}),
        (SequenceModel.classifier(CHANNELS, GRUEncoder(1, 2), 2), set()),
        (SequenceModel.classifier(CHANNELS, StartEncoder(CellEncoder(GRUDCell(1, 2)), 3, 2), 2), set()),
        (
            LatentVAE(
                CHANNELS,
                JointEncoder([GRUEncoder(1, 2, static_size=1), SummaryEncoder(GRUEncoder(1, 2))]),
                JOINT,
                Gaussian(5, 1),
            ),
            {"inputs", "static"},
        ),
    ],
)
def test_a_model_says_which_covariates_reach_it(model, reads):
    assert model.reads == reads


def test_parts_of_your_own_are_believed_to_read_covariates():
    class Own(SiteEncoder):
        def __init__(self):
            super().__init__(1, 2)
            self.static_size = None

    process = LinearGaussianProcess(Matern(1.5, lengthscale=[1.0, 2.0]))
    assert LatentVAE(CHANNELS, Own(), process, Gaussian(2, 1)).reads == {"static"}


@pytest.mark.parametrize("dt", [0.0, -1.0, float("nan")])
def test_ls4_needs_a_gap_between_knots(dt):
    with pytest.raises(ValueError, match="dt, the widest gap between knots"):
        LS4(CHANNELS, dt=dt)


@pytest.mark.parametrize(
    "build",
    [
        lambda x: Supervision([0], weight=x),
        lambda x: ELBO(beta=x),
        lambda x: ELBO(free_bits=x),
        lambda x: CapacityELBO({"z0": 1.0, "path": x}),
        lambda x: CapacityELBO({"z0": 1.0}, gamma=x),
        lambda x: CapacityELBO({"z0": 1.0}, steps=x),
        lambda x: Anneal(10, start=x),
        lambda x: Anneal(x),
        lambda x: Refined(KoopmanVAE(CHANNELS, 1), lr=x),
        lambda x: RepresentationTerm(VAMPScore(), 0.1, weight=x),
        lambda x: LinearPriorPenalty(dt=x),
        lambda x: InformationScore(prediction=x),
        lambda x: InformationScore(ridge=x),
    ],
)
@pytest.mark.parametrize("number", [-1, float("nan")])
def test_weights_are_numbers_that_weigh(build, number):
    with pytest.raises(ValueError, match="needs"):
        build(number)


@pytest.mark.parametrize("model", [LatentODE(CHANNELS, 2, input_size=1), LS4(CHANNELS, 2, 4, input_size=1)])
def test_a_driven_model_says_where_its_inputs_come_in(model):
    context = _batch(1, inputs=torch.ones(1, 3, 1))
    ts = torch.tensor([[0.5]])
    with pytest.raises(ValueError, match=r"inputs=LinearPath\(ts, xs\) .*to predict"):
        model.predict(context, ts)
    path = LinearPath(context.times, torch.ones(1, 3, 1))
    assert model.predict(context, ts, path, num_samples=2).mean.shape == (1, 1, 1)


@pytest.mark.parametrize("model", [*NAMED, MaternGP, HoldLast, lambda c: LatentSDE(c, matching=True)])
def test_one_series_needs_no_batch_axis(model):
    built, one, ts = model(CHANNELS), _batch(), torch.tensor([0.5, 2.0])
    assert built.predict(one, ts, num_samples=2).mean.shape == (2, 1)
    assert built.loss(Window(one, one)).total.isfinite()


@pytest.mark.parametrize("batch", [(), (2,)])
def test_recalibrated_without_anything_seen(batch):
    context, ts = _batch(*batch, length=0), torch.zeros(*batch, 3)
    model = Recalibrated(MaternGP(CHANNELS))
    torch.testing.assert_close(
        model.predict(context, ts, num_samples=1).mean, model.model.predict(context, ts, num_samples=1).mean
    )
