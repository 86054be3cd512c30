"""A saved Forecaster answers bit by bit as before, and a hostile folder does nothing."""

import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import ctdyn._storage as storage
from ctdyn._checks import CheckpointWriteError, DataError, VersionError
from ctdyn.data import Extrapolate, Standardize
from ctdyn.encoders import GRUEncoder
from ctdyn.forecast import Forecaster, load
from ctdyn.integrate import ConstantStep
from ctdyn.linear import Matern, Oscillators, SumDynamics
from ctdyn.models import (
    ELBO,
    HoldLast,
    LatentODE,
    LinearGaussianSSM,
    LinearInterpolation,
    MarkovianGPVAE,
    MaternGP,
    MaximumLikelihood,
    OwnMean,
    SequenceModel,
)


QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def run(fitted, tmp_path):
    return fitted.save(tmp_path / "run")


def edit(run, change):
    path = run / "config.json"
    document = json.loads(path.read_text())
    document.pop("checksum")
    change(document)
    document["checksum"] = storage._checksum(document)
    path.write_text(json.dumps(document))


def same_answers(a, b, series):
    for ask in (
        lambda f: f.forecast(series, horizon=2.0, num_samples=5),
        lambda f: f.interpolate(series, num_samples=5),
    ):
        for x, y in zip(ask(a).samples, ask(b).samples, strict=True):
            assert np.array_equal(x, y)


def test_a_run_is_three_files(run):
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "metrics.csv", "weights.safetensors"]
    assert [p.name for p in run.parent.iterdir()] == ["run"]


def test_a_loaded_forecaster_answers_as_before(fitted, run, series):
    back = load(run)
    same_answers(fitted, back, series)
    assert back.scaler_ == fitted.scaler_
    assert back.history_["step"].tolist() == fitted.history_["step"].tolist()
    assert back.seed == fitted.seed


def test_a_dated_forecaster_comes_back(dated, dated_fitted, tmp_path):
    same_answers(dated_fitted, load(dated_fitted.save(tmp_path / "run")), dated)


def test_a_seed_of_numpy_comes_back(series, tmp_path):
    forecaster = Forecaster(OwnMean(series.channels)).fit(series)
    forecaster.seed = np.random.default_rng(0).integers(5)
    assert load(forecaster.save(tmp_path / "run")).seed == forecaster.seed


@pytest.mark.parametrize("baseline", [HoldLast, LinearInterpolation, OwnMean, MaternGP])
def test_baselines_come_back(baseline, series, tmp_path):
    forecaster = Forecaster(baseline(series.channels), windows=Extrapolate(), scaler=Standardize(center="context"))
    back = load(forecaster.fit(series).save(tmp_path / "run"))
    same_answers(forecaster, back, series)


def test_linear_models_come_back_with_their_dynamics(series, tmp_path):
    dynamics = SumDynamics([Oscillators([3.0], decay=[0.5]), Matern(1.5, lengthscale=0.7)])
    exact = LinearGaussianSSM(series.channels, dynamics=dynamics, fitting=MaximumLikelihood(max_steps=2))
    sites = MarkovianGPVAE(series.channels, dynamics=Matern(0.5, lengthscale=[0.3, 1.0]))
    for name, model, fit in (("exact", exact, {}), ("sites", sites, {"max_steps": 1, **QUIET})):
        fitted = Forecaster(model).fit(series, **fit)
        same_answers(fitted, load(fitted.save(tmp_path / name)), series)


def test_double_precision_comes_back(series, tmp_path, build):
    forecaster = Forecaster(build(series.channels, objective=ELBO(free_bits=0.1)).double())
    back = load(forecaster.fit(series, max_steps=1, **QUIET).save(tmp_path / "run"))
    assert next(back.model.parameters()).dtype == torch.float64
    same_answers(forecaster, back, series)


def test_loading_leaves_the_global_seed_alone(run):
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    load(run)
    assert torch.equal(torch.rand(2), expected)


def test_a_loaded_forecaster_can_be_fitted_and_saved_again(run, series):
    back = load(run).fit(series, max_steps=1, **QUIET)
    back.save(run)
    same_answers(back, load(run), series)
    assert len(list(run.iterdir())) == 3


def test_a_run_that_was_trained_in_its_folder_is_saved_beside_its_checkpoint(series, model, tmp_path):
    folder = tmp_path / "run"
    forecaster = Forecaster(model).fit(series, max_steps=2, dir=folder, **QUIET)
    with pytest.raises(FileNotFoundError, match="not finished"):
        load(folder)
    forecaster.save(folder)
    same_answers(forecaster, load(folder), series)
    assert pd.read_csv(folder / "metrics.csv")["step"].tolist() == [2]


def test_a_resumed_forecaster_is_the_one_that_was_never_interrupted(series, tmp_path, build):
    import lightning.pytorch as pl

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 27:
                raise RuntimeError("the lights went out")

    train, validation = series.split(6)

    def forecaster():
        return Forecaster(build(series.channels))

    whole = forecaster().fit(train, validation, max_steps=29, **QUIET)
    with pytest.raises(RuntimeError, match="lights"):
        forecaster().fit(train, validation, max_steps=29, dir=tmp_path, callbacks=[Stop()], **QUIET)
    resumed = forecaster().fit(train, validation, max_steps=29, dir=tmp_path, resume=True, **QUIET)
    same_answers(whole, resumed, series)


def test_a_folder_of_something_else_is_not_touched(fitted, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointWriteError, match="no run of ctdyn"):
        fitted.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointWriteError, match="no run of ctdyn"):
        fitted.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "thesis.tex"]


def test_a_failed_save_leaves_nothing(fitted, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointWriteError, match="space"):
        fitted.save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# -- models of one's own


class Mine(LatentODE):
    """Not one of ctdyn's."""

    def __init__(self, channels, size=2):
        super().__init__(channels, latent_size=size, hidden=(4,), encoder_size=4, controller=ConstantStep(0.5))


def test_a_model_of_ones_own_is_passed_in(series, tmp_path):
    forecaster = Forecaster(Mine(series.channels)).fit(series, max_steps=1, **QUIET)
    run = forecaster.save(tmp_path / "run")
    with pytest.raises(ValueError, match=r"model=\.\.\."):
        load(run)
    same_answers(forecaster, load(run, model=Mine(series.channels)), series)
    with pytest.raises(ValueError, match="does not fit the weights"):
        load(run, model=Mine(series.channels, size=3))
    with pytest.raises(ValueError, match="channels"):
        load(run, model=Mine(series.channels[:1]))


# -- hostile folders


@pytest.mark.parametrize("name", ["os.system", "Popen", "TorchDiffEqq", "__import__", "builtins.eval", "Path"])
def test_a_class_outside_of_the_list_is_never_built(run, name):
    def change(document):
        document["model"]["class"] = name

    edit(run, change)
    with pytest.raises(ValueError, match="not one of ctdyn's classes"):
        load(run)


def test_an_edited_configuration_is_noticed(run):
    path = run / "config.json"
    path.write_text(path.read_text().replace('"latent_size": 3', '"latent_size": 4'))
    with pytest.raises(DataError, match="checksum"):
        load(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["model"]["arguments"].update(latent_size=10**9, hidden=[10**9, 10**9]),
        lambda d: d["model"]["arguments"].update(latent_size=4),
        lambda d: d["model"]["arguments"].update(latent_size="four"),
        lambda d: d["model"]["arguments"].update(latent_size={"mapping": {}}),
        lambda d: d["model"]["arguments"].update(surprise=1),
        lambda d: d["model"].update(arguments=[1, 2]),
        lambda d: d.update(model={"class": "Tsit5", "arguments": {}}),
        lambda d: d.update(model=3),
        lambda d: d.update(scaler={"class": "Tsit5", "arguments": {}}),
        lambda d: d.update(axis=None),
        lambda d: d.update(channels="x"),
        lambda d: d.update(channels=[]),
        lambda d: d.update(gap="wide"),
        lambda d: d.update(seed=None),
        lambda d: d.pop("windows"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_a_clear_error(run, change):
    edit(run, change)
    with pytest.raises(ValueError, match="run"):
        load(run)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_from_before_labels_had_units_has_none(series, tmp_path, dtype):
    rng = np.random.default_rng(0)
    labelled = tuple(replace(one, labels=rng.normal(size=1)) for one in series)
    data = replace(series, series=labelled, label_names=("age",))
    model = SequenceModel.regressor(data.channels, GRUEncoder(len(data.channels), 2)).to(dtype)
    forecaster = Forecaster(model).fit(data, max_steps=1, **QUIET)
    assert model.units is not None
    for value in model.units.state_dict().values():
        value.zero_()
    known = {name: value for name, value in model.state_dict().items() if not name.startswith("units.")}
    assert len(known) < len(model.state_dict())
    model.state_dict = lambda: known
    again = load(forecaster.save(tmp_path / "old"))
    pd.testing.assert_frame_equal(again.predict_label(data), forecaster.predict_label(data), check_exact=True)


def test_a_newer_format_says_so(run):
    edit(run, lambda d: d.update(version=2))
    with pytest.raises(VersionError, match="Upgrade"):
        load(run)


@pytest.mark.parametrize("truncate", [False, True])
def test_damaged_weights_are_noticed(run, truncate):
    path = run / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[:-10] if truncate else content)
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        load(run)


def test_a_pickle_is_not_opened(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "marker"),))

    for name in ("weights.safetensors", "weights.pt", "config.pkl"):
        (run / name).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError):
        load(run)
    assert not (tmp_path / "marker").exists()


def test_no_folder_is_a_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load(tmp_path / "nothing")


def test_a_broken_history_does_not_stop_the_answers(run, fitted, series):
    (run / "metrics.csv").write_bytes(b"\xff\xfe\x00a,b\n1")
    same_answers(fitted, load(run), series)
