"""Every field x process x gradient mode x engine, from the exports: what is legal trains, what is not says why.

A new field, process, adjoint or engine joins by being exported, as long as its constructor speaks the names of its
siblings (`state_size`, `hidden`, `field` ...). New linear dynamics need a line in `DYNAMICS`.
"""

import inspect
from functools import cache

import pytest
import torch
from torch import nn

from ctdyn import fields, integrate, linear, processes
from ctdyn.data.channels import Channel
from ctdyn.encoders import BidirectionalGRUEncoder, GRUEncoder, SiteEncoder
from ctdyn.fields import CDEField, LinearCDEField, LogODEField, MLPField, SDEField, VectorField
from ctdyn.integrate import Adjoint, Engine, StepTo
from ctdyn.likelihoods import Gaussian
from ctdyn.linear import LinearDynamics
from ctdyn.models import LatentVAE
from ctdyn.processes import LatentProcess, LinearGaussianProcess, MatchedSDEProcess, ODEProcess, SDEProcess
from ctdyn.solvers import RK4, Midpoint, ReversibleHeun, ReversibleMethod
from ctdyn.structure import Calculus, Noise
from ctdyn.testing import check_model, example_window


SIZE = 4
INPUTS = 2
CHANNELS = (Channel("a"), Channel("b"))


def exported(package, kind):
    """The concrete classes of a kind, by name."""
    found = {name: getattr(package, name) for name in package.__all__}
    return {
        name: x for name, x in found.items() if inspect.isclass(x) and issubclass(x, kind) and not inspect.isabstract(x)
    }


FIELDS = exported(fields, VectorField | SDEField | CDEField)
PROCESSES = {
    name: x
    for name, x in exported(processes, LatentProcess).items()
    if {"field", "dynamics"} & set(inspect.signature(x.__init__).parameters)
}
ADJOINTS = exported(integrate, Adjoint)
ENGINES = exported(integrate, Engine)

#: One of each kind of linear dynamics.
DYNAMICS = {
    "Dense": lambda: linear.Dense(-torch.eye(2), S=torch.eye(2)),
    "Diagonal": lambda: linear.Diagonal(-torch.ones(2), S=torch.eye(2)),
    "HippoLagT": lambda: linear.HippoLagT(2, 1.0),
    "HippoLegS": lambda: linear.HippoLegS(2),
    "HippoLegT": lambda: linear.HippoLegT(2, 1.0),
    "IntegratedDynamics": lambda: linear.IntegratedDynamics(linear.Matern(0.5), torch.ones(1, 1)),
    "Matern": lambda: linear.Matern(1.5, lengthscale=[0.3, 1.0]),
    "OU": lambda: linear.OU(rate=[1.0, 3.0], sigma=1.0),
    "Oscillators": lambda: linear.Oscillators([3.0], decay=[0.3]),
    "Periodic": lambda: linear.Periodic([1.0, 2.0], harmonics=2),
    "ProductDynamics": lambda: linear.ProductDynamics(linear.Periodic(1.0, harmonics=1), linear.Matern(0.5)),
    "Rotations": lambda: linear.Rotations([0.3], [3.0], sigma=1.0),
    "Stationary": lambda: linear.Stationary(3),
    "SumDynamics": lambda: linear.SumDynamics([linear.Matern(0.5), linear.Matern(1.5, lengthscale=3.0)]),
}

_ARGUMENTS = {
    "state_size": SIZE,
    "units": SIZE,
    "control_size": INPUTS,
    "hidden": (4,),
    "span": 1.0,
    "latent_size": SIZE,
    "context_size": 3,
    "dt": 0.25,
}


def built(kind, **given):
    """A part whose arguments are named as everywhere."""
    names = inspect.signature(kind.__init__).parameters
    wrapped = {"field": LinearCDEField(SIZE, INPUTS) if issubclass(kind, CDEField) else MLPField(SIZE, (4,))}
    known = {**_ARGUMENTS, **wrapped, **given}
    required = [n for n, p in names.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    missing = [name for name in required if name not in known]
    assert not missing, f"{kind.__name__} needs {missing}; name it as its siblings do, or add it to _ARGUMENTS"
    return kind(**{name: known[name] for name in names if name in known})


def process_of(kind, part, **options):
    """A process around a field or dynamics; a gradient mode goes where the process has one."""
    place = "dynamics" if "dynamics" in inspect.signature(kind.__init__).parameters else "field"
    return built(kind, **{place: part}, **options)


def model_of(process):
    torch.manual_seed(0)
    size = process.latent_size
    if "sites" in process.requires:
        encoder = SiteEncoder(2, size, (4,))
    elif "context" in process.requires:
        encoder = BidirectionalGRUEncoder(2, size, 3, 4)
    else:
        encoder = GRUEncoder(2, size, 4, ())
    model = LatentVAE(CHANNELS, encoder, process, Gaussian(size, 2))
    with torch.no_grad():
        # What starts at zero, such as a correction, passes no gradient on to what feeds it.
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.1)
    return model


@cache
def example(inputs):
    return example_window(2, input_size=inputs)


def window(part):
    """What a part is tried on; a controlled equation is driven by inputs, a bracket of each pair of them included."""
    brackets = len(part.pairs) if isinstance(part, LogODEField) else 0
    return example(INPUTS + brackets if isinstance(part, CDEField) else 0)


def natural(field, process):
    """Whether the two belong together, in the words of the contracts."""
    if issubclass(process, ODEProcess):
        return isinstance(field, VectorField | CDEField)
    if issubclass(process, MatchedSDEProcess):
        plain = (Noise.DIAGONAL, Noise.ADDITIVE)
        return isinstance(field, SDEField) and field.noise in plain and field.calculus is Calculus.ITO
    return issubclass(process, SDEProcess) and isinstance(field, SDEField)


def gradients(process, part):
    """One step of training: the gradient of each parameter."""
    model = model_of(process).double()
    loss = model.loss(window(part), generator=torch.Generator().manual_seed(0)).total
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in found.values())
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3 / float(nn.utils.get_total_norm(found.values())))
    optimiser.step()
    with torch.no_grad():
        after = model.loss(window(part), generator=torch.Generator().manual_seed(0)).total
    assert after < loss, "a small step along the gradient does not lower the loss"
    return found


def attempt(act, *names):
    """What came of it; a refusal must name one of the parts that do not fit."""
    try:
        return act()
    except (TypeError, ValueError, NotImplementedError) as error:
        told = str(error)
        assert any(name in told for name in names), f"refused without a reason: {told!r} names none of {names}"
        return None


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("field", FIELDS)
def test_fields_and_processes(field, process):
    torch.manual_seed(0)
    part, kind = built(FIELDS[field]), PROCESSES[process]
    if not natural(part, kind):
        with pytest.raises((TypeError, ValueError)) as refusal:
            process_of(kind, part)
        assert process in str(refusal.value)
        return
    options = {"controller": StepTo(1), "solver": Midpoint()} if issubclass(kind, ODEProcess) else {}
    driven = isinstance(part, CDEField)
    timed = any("Time" in type(x).__name__ and not isinstance(x, fields.IgnoreTime) for x in part.modules())
    autonomous = not driven and not timed
    check_model(model_of(process_of(kind, part, **options)), window(part), autonomous=autonomous, steps=12)


@pytest.mark.parametrize("dynamics", exported(linear, LinearDynamics))
def test_dynamics_and_processes(dynamics):
    assert dynamics in DYNAMICS, f"add a line for {dynamics}"
    part = DYNAMICS[dynamics]()
    process = attempt(lambda: LinearGaussianProcess(part), dynamics, "LinearGaussianProcess", "readout", "stationary")
    if process is None:
        return
    if dynamics in ("Dense", "Diagonal"):
        # A tensor among the arguments cannot be written to a configuration.
        gradients(process, part)
    else:
        check_model(model_of(process), window(part), steps=12)
    for name, kind in PROCESSES.items():
        if kind is not LinearGaussianProcess:
            with pytest.raises((TypeError, ValueError), match=name):
                process_of(kind, part)


def _pairs():
    torch.manual_seed(0)
    made = [(name, process, built(x)) for name, x in FIELDS.items() for process in PROCESSES]
    return [(name, process) for name, process, part in made if natural(part, PROCESSES[process])]


def _method(adjoint, process):
    """What a gradient mode needs of a method."""
    if adjoint is integrate.Reversible:
        return ReversibleMethod(Midpoint()) if issubclass(process, ODEProcess) else ReversibleHeun()
    return Midpoint() if issubclass(process, ODEProcess) else None


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize(("field", "process"), _pairs())
def test_gradient_modes(field, process, adjoint):
    kind = PROCESSES[process]
    if "adjoint" not in inspect.signature(kind.__init__).parameters:
        assert issubclass(kind, MatchedSDEProcess), f"{process} solves an equation and has no gradient mode"
        return

    # It solves an equation of its own, whose gradient is that of short steps.
    loose = adjoint == "Backsolve" and issubclass(kind, ODEProcess)

    def train(mode):
        torch.manual_seed(0)
        part = built(FIELDS[field])
        options = {"solver": _method(ADJOINTS[adjoint], kind), "controller": StepTo(1), "adjoint": mode}
        if loose:
            options |= {"solver": RK4(), "controller": StepTo(4)}
        return gradients(process_of(kind, part, **options), part)

    names = (adjoint, field, "ReversibleHeun", "torch.func")
    found = attempt(lambda: train(ADJOINTS[adjoint]()), *names)
    if issubclass(kind, ODEProcess) and issubclass(FIELDS[field], VectorField):
        assert found is not None, f"{adjoint} must train ordinary equations"
    if found is None or adjoint == "Direct":
        assert found is not None or adjoint != "Direct"
        return
    for name, expected in train(integrate.Direct()).items():
        scale = float(expected.abs().max())
        tolerance = (5e-2 if loose else 1e-6) * scale
        torch.testing.assert_close(found[name], expected, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


#: Engines that must be told a method.
_ENGINE_OF = {"TorchSDE": lambda: integrate.TorchSDE("euler", dt=0.02)}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("field", "process"), _pairs())
def test_engines(field, process, engine):
    kind = PROCESSES[process]
    if "solver" not in inspect.signature(kind.__init__).parameters:
        return

    def train(solver, **options):
        torch.manual_seed(0)
        part = built(FIELDS[field])
        return gradients(process_of(kind, part, solver=solver, **options), part)

    found = attempt(lambda: train(_ENGINE_OF.get(engine, ENGINES[engine])()), engine, field)
    if found is None:
        return
    own = train(RK4(), controller=StepTo(4)) if issubclass(kind, ODEProcess) else train(None)
    for name, expected in own.items():
        torch.testing.assert_close(
            found[name],
            expected,
            rtol=0,
            atol=(0.2 if engine == "TorchSDE" else 2e-2) * float(expected.abs().max()) + 1e-9,
        )
