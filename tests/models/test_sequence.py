"""Labelled series: classes and numbers, from every kind of reader, through `Forecaster`, and what is refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import ctdyn
from ctdyn._checks import DataError, DataWarning
from ctdyn.cells import CfCCell, GRUDCell, ODERNNCell
from ctdyn.data import Channel, Extrapolate, Series, SeriesSet, Window
from ctdyn.encoders import CDEEncoder, CellEncoder, GRUEncoder, SiteEncoder
from ctdyn.fields import LinearCDEField, LogODEField, MLPCDEField
from ctdyn.likelihoods import Categorical, Gaussian
from ctdyn.models import FilteringModel, LatentODE, OwnMean, SequenceModel
from ctdyn.paths import Control, HermitePath, LinearPath, RectilinearPath
from ctdyn.solvers import Dopri5
from ctdyn.testing import check_labels, example_window


CHANNELS = (Channel("a"), Channel("b"))
CLASSES = torch.tensor([[0.0], [1.0], [1.0], [0.0]])


def linear(size=4, block=2, control=None):
    control = Control(LinearPath) if control is None else control
    return CDEEncoder(2, size, LinearCDEField(size, control.size(2), block_size=block), control)


ENCODERS = {
    "GRU": lambda: GRUEncoder(2, 3, 6),
    "GRU-D": lambda: CellEncoder(GRUDCell(2, 4)),
    "ODE-RNN": lambda: CellEncoder(ODERNNCell(2, 4), average=True),
    "neural CDE": lambda: CDEEncoder(2, 4, MLPCDEField(4, 5), Control(HermitePath)),
    "online CDE": lambda: CDEEncoder(2, 4, MLPCDEField(4, 5), Control(RectilinearPath, causal=True)),
    "linear CDE": linear,
    "Log-NCDE": lambda: CDEEncoder(
        2, 4, LogODEField(MLPCDEField(4, 3), 3), Control(LinearPath, counts=0.0, window=2), start_hidden=(5,)
    ),
}


class Narrow(GRUEncoder):
    def forward(self, batch):
        raise ValueError("too narrow")


def labelled(labels=CLASSES):
    return dataclasses.replace(example_window(2).context, labels=labels)


@pytest.mark.parametrize("name", ENCODERS)
def test_contract_of_classifiers(name):
    check_labels(SequenceModel.classifier(CHANNELS, ENCODERS[name](), 2, (5,)), labelled())


def test_contract_of_regressors():
    labels = torch.tensor([[0.1, 2.0], [-0.5, 0.3], [0.9, 0.4], [0.0, -1.0]])
    check_labels(SequenceModel.regressor(CHANNELS, linear(), 2), labelled(labels))


class Peeking(SequenceModel):
    def predict_label(self, context):
        found = super().predict_label(context)
        return type(found)(logits=found.logits + torch.nan_to_num(context.labels)[..., None] * torch.tensor([0.0, 1.0]))


class Lengths(SequenceModel):
    def encode(self, context):
        return super().encode(context) + 0.1 * context.times.shape[-1]


class Clocked(SequenceModel):
    def encode(self, context):
        return super().encode(context) + 0.1 * context.times[..., -1:]


class Severe(SequenceModel):
    def loss(self, window, *, generator=None, step=None):
        found = super().loss(window)
        return dataclasses.replace(found, total=found.total + window.context.labels.isnan().sum())


@pytest.mark.parametrize(
    ("kind", "match"),
    [(Peeking, "leak"), (Lengths, "padded times"), (Clocked, "shift of all times"), (Severe, "not known")],
)
def test_broken_models_are_found(kind, match):
    model = kind(CHANNELS, GRUEncoder(2, 3, 6), Categorical(6, 1, 2))
    with pytest.raises(AssertionError, match=match):
        check_labels(model, labelled())


def series(count=24, seed=0):
    """Rising and falling lines, seen at irregular times with noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        times = np.sort(rng.uniform(0.0, 4.0, rng.integers(5, 12)))
        values = (2 * (i % 2) - 1) * times[:, None] * [1.0, 0.5] + rng.normal(0, 0.2, (len(times), 2))
        values[rng.random(values.shape) < 0.2] = np.nan
        rows.append(Series(f"s{i}", times + 100.0 * i, values, labels=np.array([float(i % 2)])))
    return SeriesSet(tuple(rows), CHANNELS, label_names=("trend",))


def test_from_series_to_labels_and_back_from_disk(tmp_path):
    data = series()
    train, test = data.split(0.7, seed=0)
    forecaster = ctdyn.Forecaster(SequenceModel.classifier(CHANNELS, linear(), 2)).fit(
        train, max_steps=60, lr=1e-2, enable_progress_bar=False
    )
    found = forecaster.predict_label(test)
    assert list(found.columns) == ["id", "label", "value", "p0", "p1"]
    assert set(found["label"]) == {"trend"}
    truth = [int(one.labels[0]) for one in test]
    assert np.mean(found["value"].to_numpy() == truth) > 0.9
    np.testing.assert_allclose(found["p0"] + found["p1"], 1.0, atol=1e-6)
    # What is to be labelled has no labels yet.
    bare = tuple(dataclasses.replace(one, labels=None) for one in test)
    asked = dataclasses.replace(test, series=bare, label_names=())
    pd.testing.assert_frame_equal(forecaster.predict_label(asked), found)
    again = ctdyn.load(forecaster.save(tmp_path / "run"))
    pd.testing.assert_frame_equal(again.predict_label(asked), found)
    assert len(forecaster.encode(test).columns) == 1 + 4


def test_numbers_have_a_mean_and_a_spread():
    data = series(12)
    model = SequenceModel.regressor(CHANNELS, CellEncoder(GRUDCell(2, 4)))
    forecaster = ctdyn.Forecaster(model).fit(data, max_steps=2, enable_progress_bar=False)
    assert list(forecaster.predict_label(data).columns) == ["id", "label", "value", "std"]


@pytest.mark.parametrize(("shift", "unit"), [(5000.0, 2000.0), (-3.0, 1e-6)])
def test_numbers_come_in_their_own_units(shift, unit):
    """What is learned is the same, and so are answers, in these units; those of the first batch stay."""
    labels = torch.tensor([[0.1], [-0.5], [0.9], [float("nan")]], dtype=torch.float64)

    def trained(labels):
        torch.manual_seed(0)
        model = SequenceModel.regressor(CHANNELS, GRUEncoder(2, 3, 6)).double()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
        batch = labelled(labels)
        for _ in range(10):
            optimiser.zero_grad()
            loss = model.loss(Window(batch, batch)).total
            loss.backward()
            optimiser.step()
        return model.predict_label(batch), loss, model

    plain, loss, _ = trained(labels)
    found, other, model = trained(shift + unit * labels)
    torch.testing.assert_close(found.mean, shift + unit * plain.mean, rtol=1e-4, atol=1e-4 * unit)
    torch.testing.assert_close(found.stddev, unit * plain.stddev, rtol=1e-4, atol=0)
    torch.testing.assert_close(other, loss + 0.75 * np.log(unit).item(), rtol=0, atol=1e-3)
    again = labelled(torch.full((4, 1), 7.0 * shift, dtype=torch.float64))
    model.loss(Window(again, again))
    torch.testing.assert_close(model.predict_label(again).mean, found.mean)


def test_static_covariates_and_inputs_tell_of_labels():
    data = series(40)
    known = [
        dataclasses.replace(one, values=np.ones_like(one.values), static=np.array([one.labels[0], np.nan]))
        for one in data
    ]
    told = dataclasses.replace(data, series=tuple(known), static_names=("sign", "unknown"))
    model = SequenceModel.classifier(CHANNELS, GRUEncoder(2, 3, static_size=2), 2)
    found = ctdyn.Forecaster(model).fit(told, max_steps=60, lr=0.02, enable_progress_bar=False).predict_label(told)
    assert (found["value"] == [one.labels[0] for one in told]).all()
    assert SequenceModel.regressor(CHANNELS, GRUEncoder(2, 3, input_size=1)).likelihood.latent_size == 6
    with pytest.warns(DataWarning, match=r"such as SequenceModel with GRUEncoder\(num_channels, .* static_size=2\)"):
        ctdyn.Forecaster(SequenceModel.classifier(CHANNELS, GRUEncoder(2, 3), 2)).fit(told, max_steps=1)


def test_labels_are_not_scored_as_forecasts():
    data = series(6)
    model = SequenceModel.classifier(CHANNELS, GRUEncoder(2, 3), 2)
    forecaster = ctdyn.Forecaster(model).fit(data, max_steps=1, enable_progress_bar=False)
    with pytest.raises(DataError, match=r"hides nothing .* predict_label"):
        forecaster.score(data)


def test_whole_series_are_read_unless_told_otherwise():
    model = SequenceModel.classifier(CHANNELS, linear(), 2)
    assert not ctdyn.Forecaster(model).windows.varies
    assert ctdyn.Forecaster(model, windows=Extrapolate()).windows == Extrapolate()
    assert ctdyn.Forecaster(OwnMean(CHANNELS)).windows.varies


@pytest.mark.parametrize("name", ["neural CDE", "online CDE", "linear CDE", "Log-NCDE"])
def test_a_level_is_felt_although_an_equation_feels_only_changes(name):
    """Without the first values in the initial state a shift of all values would change nothing."""
    torch.manual_seed(0)
    encoder, batch = ENCODERS[name]().double(), example_window(2).context
    raised = dataclasses.replace(batch, values=torch.where(batch.mask, batch.values + 10.0, 0.0))
    assert (encoder(raised).static - encoder(batch).static)[:-1].abs().amax(-1).min() > 1e-3
    if name == "linear CDE":
        torch.nn.init.zeros_(encoder.start.layers[0].weight)
        full = dataclasses.replace(batch, mask=torch.ones_like(batch.mask))
        raised = dataclasses.replace(full, values=full.values + 10.0)
        torch.testing.assert_close(encoder(raised).static, encoder(full).static, rtol=1e-9, atol=1e-9)


def test_a_transition_that_is_no_flow_says_so_and_is_refused_by_a_method():
    cell = CfCCell(2, 4)
    for model in (SequenceModel.classifier(CHANNELS, CellEncoder(cell), 2), FilteringModel(CHANNELS, cell)):
        assert "not a flow" in model.explain()
    with pytest.raises(TypeError, match=r"CfCCell has none.*not even a flow"):
        ctdyn.solve(cell, torch.zeros(2, cell.hidden_size), torch.tensor([0.0, 1.0]), solver=Dopri5())


def test_what_solves_a_model_is_explained():
    assert SequenceModel.classifier(CHANNELS, linear(), 2).explain() == (
        "encoder: exact: LinearCDEField is linear and its control moves in straight lines: no step is needed"
    )
    told = {name: SequenceModel.classifier(CHANNELS, build(), 2).explain() for name, build in ENCODERS.items()}
    assert told["GRU"] == "SequenceModel: there is no equation to solve"
    assert told["GRU-D"].startswith("encoder.cell: in one piece: GRUDCell")
    assert told["ODE-RNN"].startswith("encoder.cell: Midpoint()")
    assert "MLPCDEField" not in told["ODE-RNN"]
    assert told["neural CDE"].startswith("encoder: RK4() with StepTo")
    assert LatentODE(CHANNELS).explain().startswith("process: RK4()")


def test_misuse_is_refused_with_the_cure():
    model = SequenceModel.classifier(CHANNELS, linear(), 2)
    batch = labelled().to(torch.float32)
    with pytest.raises(TypeError, match="predict_label"):
        model.predict(batch, batch.times)
    with pytest.raises(ValueError, match="no labels"):
        model.loss(Window(example_window(2).context.to(torch.float32), example_window(2).target.to(torch.float32)))
    wrong = labelled(torch.tensor([[0.0], [2.0], [1.0], [0.0]])).to(torch.float32)
    with pytest.raises(ValueError, match=r"series 1 .* label 2; the model knows the classes 0, 1"):
        model.loss(Window(wrong, wrong))
    with pytest.raises(ValueError, match=r"labels of shape \(4, 1\)"):
        SequenceModel(CHANNELS, linear(), Gaussian(4, 2)).loss(Window(batch, batch))
    with pytest.raises(ValueError, match="static description or q0"):
        SequenceModel.classifier(CHANNELS, SiteEncoder(2, 3), 2)
    with pytest.raises(ValueError, match=r"too narrow.*build the likelihood"):
        SequenceModel.classifier(CHANNELS, Narrow(2, 3), 2)
    with pytest.raises(ValueError, match="built for 2 channels"):
        model.predict_label(dataclasses.replace(batch, values=batch.values[..., :1], mask=batch.mask[..., :1]))
    forecaster = ctdyn.Forecaster(OwnMean(CHANNELS)).fit(series(6))
    with pytest.raises(TypeError, match="SequenceModel"):
        forecaster.predict_label(series(6))
