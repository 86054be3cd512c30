import jaxtyping
import pytest
import torch
from torch import nn

from ctdyn._config import from_config, to_config
from ctdyn.fields import ConcatTime, LinearField, LogODEField, MLPCDEField, MLPField, Scaled
from ctdyn.nn import ACTIVATIONS


CLASSES = {"MLPField": MLPField, "LinearField": LinearField, "ConcatTime": ConcatTime, **ACTIVATIONS}


@pytest.mark.parametrize("kind", [MLPField, LinearField])
def test_inputs_are_asked_for_and_refused_clearly(kind):
    t, y, u = torch.zeros(4), torch.zeros(4, 3), torch.zeros(4, 2)
    driven, free = kind(3, input_size=2), kind(3)
    assert driven(t, y, u).shape == (4, 3)
    assert free(t, y).shape == (4, 3)
    with pytest.raises(ValueError, match="none were given"):
        driven(t, y)
    with pytest.raises(ValueError, match="takes no inputs"):
        free(t, y, u)
    with pytest.raises(ValueError, match="input_size=2"):
        driven(t, y, torch.zeros(4, 5))
    with pytest.raises(ValueError, match="state_size=3"):
        free(t, torch.zeros(4, 7))


@pytest.mark.parametrize("kind", [MLPField, LinearField])
def test_bad_sizes_are_refused(kind):
    with pytest.raises(ValueError, match="state_size"):
        kind(0)
    with pytest.raises(ValueError, match="input_size"):
        kind(2, input_size=-1)


@pytest.mark.parametrize(
    "field",
    [
        MLPField(3),
        MLPField(2, hidden=[5], activation=nn.SiLU, input_size=1, layer=ConcatTime, zero_last=True),
        LinearField(2, matrix=[[0.0, 1.0], [-1.0, 0.0]]),
        LinearField(3, input_size=2),
    ],
    ids=repr,
)
def test_fields_survive_configuration(field):
    again = from_config(to_config(field), CLASSES)
    again.load_state_dict(field.state_dict())
    t, y = torch.rand(4), torch.randn(4, field.state_size)
    u = torch.randn(4, field.input_size) if field.input_size else None
    assert torch.equal(again(t, y, u), field(t, y, u))


def test_an_mlp_field_is_autonomous_unless_told_otherwise():
    y = torch.randn(4, 3)
    early, late = torch.zeros(4), torch.full((4,), 5.0)
    autonomous, timed = MLPField(3), MLPField(3, layer=ConcatTime)
    assert torch.equal(autonomous(early, y), autonomous(late, y))
    assert not torch.equal(timed(early, y), timed(late, y))


def test_a_linear_field_is_what_its_equation_says():
    field = LinearField(2, matrix=[[1.0, 2.0], [3.0, 4.0]], input_size=1).double()
    with torch.no_grad():
        field.b.copy_(torch.tensor([10.0, 20.0]))
        field.B.copy_(torch.tensor([[1.0], [2.0]]))
    y, u = torch.tensor([[1.0, 1.0]], dtype=torch.float64), torch.tensor([[5.0]], dtype=torch.float64)
    want = torch.tensor([[1 + 2 + 10 + 5.0, 3 + 4 + 20 + 10.0]], dtype=torch.float64)
    assert torch.equal(field(torch.zeros(1, dtype=torch.float64), y, u), want)


def test_a_linear_field_starts_as_a_damped_rotation():
    eigenvalues = torch.linalg.eigvals(LinearField(6).A.detach().double())
    assert torch.allclose(eigenvalues.real, torch.full((6,), -0.1, dtype=torch.float64), atol=1e-6)
    assert eigenvalues.imag.abs().max() > 0.1


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="2 rows of 2"):
        LinearField(2, matrix=[[1.0, 2.0, 3.0]])


def test_what_is_built_on_a_field_asks_for_one_of_its_kind(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match=r"instance of CDEField.*got a MLPField"):
        LogODEField(MLPField(2), 2)
    with pytest.raises(TypeError, match=r"instance of VectorField.*the class LinearField: call it"):
        Scaled(LinearField, 2.0)
    with pytest.raises(TypeError, match="instance of VectorField"):
        Scaled(MLPCDEField(2, 1), 2.0)
