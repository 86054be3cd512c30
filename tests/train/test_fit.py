"""What `fit` promises: the same seed gives the same weights, and an interrupted training ends where it would have."""

import math
import warnings
from dataclasses import replace

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch

import ctdyn.train._module as training_module
from ctdyn._checks import CheckpointWriteError, DataError, DataWarning, NonFiniteError
from ctdyn.data import Window
from ctdyn.train import Exponential, _loop, fit


QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Stop(pl.Callback):
    """Dies in the middle of a round, as a power cut would."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            raise RuntimeError("the lights went out")


def test_training_lowers_the_loss_and_says_so(line, loader):
    model = line()
    history = fit(model, loader(), loader(3, seed=9), max_steps=150, lr=2e-2, **QUIET)
    assert history["val_loss"].iloc[-1] < 0.7 * history["val_loss"].iloc[0]
    assert history["step"].tolist() == [30, 60, 90, 120, 150]
    assert history["epoch"].tolist() == [3.0, 6.0, 9.0, 12.0, 15.0]
    assert {"lr", "seconds", "skipped", "train_loss", "train_nats_per_observation", "val_nats_per_observation"} <= set(
        history
    )
    assert not model.training


def test_validation_asks_for_the_true_bound_on_the_same_windows(line, loader):
    model = line()
    history = fit(model, loader(), loader(2), max_steps=60, lr=1e-30, **QUIET)
    assert history["val_loss"].nunique() == 1
    validated = [step for step in model.steps if step is None]
    assert len(validated) == 4
    assert [step for step in model.steps if step is not None] == list(range(60))


def test_a_last_round_that_is_cut_short_is_validated(line, loader):
    history = fit(line(), loader(), loader(2), max_steps=40, **QUIET)
    assert history["step"].tolist() == [30, 40]
    assert history["val_loss"].notna().all()


def test_the_same_seed_gives_the_same_weights_and_another_does_not(line, loader):
    models = [line() for _ in range(3)]
    state = torch.random.get_rng_state()
    for model, seed in zip(models, (3, 3, 4), strict=True):
        fit(model, loader(), loader(2), max_steps=40, seed=seed, **QUIET)
        torch.rand(1)
    torch.random.set_rng_state(state)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


def test_the_global_seed_is_left_alone(line, loader):
    model = line()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(model, loader(), max_steps=3, **QUIET)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("step", [35, 60, 75])
def test_a_resumed_training_ends_where_the_uninterrupted_one_does(line, loader, tmp_path, step):
    whole = line()
    expected = fit(whole, loader(), loader(2), max_steps=100, **QUIET)
    with pytest.raises(RuntimeError, match="lights"):
        fit(line(), loader(), loader(2), max_steps=100, dir=tmp_path, callbacks=[Stop(step)], **QUIET)
    resumed = line()
    history = fit(resumed, loader(), loader(2), max_steps=100, dir=tmp_path, resume=True, **QUIET)
    assert torch.equal(weights(whole), weights(resumed))
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), expected.drop(columns="seconds"))
    written = pd.read_csv(tmp_path / "metrics.csv")
    assert written["step"].tolist() == history["step"].tolist()


def test_resuming_without_validation_gives_the_same_last_weights(line, loader, tmp_path):
    whole = line()
    fit(whole, loader(), max_steps=70, **QUIET)
    with pytest.raises(RuntimeError, match="lights"):
        fit(line(), loader(), max_steps=70, dir=tmp_path, callbacks=[Stop(50)], **QUIET)
    resumed = line()
    history = fit(resumed, loader(), max_steps=70, dir=tmp_path, resume=True, **QUIET)
    assert torch.equal(weights(whole), weights(resumed))
    assert history["step"].tolist() == [30, 60, 70]


def test_resuming_a_finished_training_changes_nothing(line, loader, tmp_path):
    model, again = line(), line()
    history = fit(model, loader(), loader(2), max_steps=60, dir=tmp_path, **QUIET)
    resumed = fit(again, loader(), loader(2), max_steps=60, dir=tmp_path, resume=True, **QUIET)
    assert torch.equal(weights(model), weights(again))
    pd.testing.assert_frame_equal(history, resumed)
    assert again.steps == []


def test_resuming_an_early_stopped_training_changes_nothing(line, loader, tmp_path):
    model, again = line(), line()
    schedule = Exponential(1e-30)
    settings = {"max_steps": 500, "lr": schedule, "patience": 2, "dir": tmp_path, **QUIET}
    history = fit(model, loader(), loader(2), **settings)
    assert len(history) == 3
    resumed = fit(again, loader(), loader(2), resume=True, **settings)
    assert torch.equal(weights(model), weights(again))
    assert len(resumed) == 3


def test_the_best_weights_come_back(line, loader):
    class Spoil(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == 61:
                with torch.no_grad():
                    for parameter in module.model.parameters():
                        parameter.mul_(100)

    model = line()
    history = fit(model, loader(), loader(2), max_steps=90, callbacks=Spoil(), lr=1e-3, **QUIET)
    assert history["val_loss"].idxmin() == 1
    assert history["val_loss"].iloc[-1] > 10
    assert weights(model).abs().max() < 10


def test_early_stopping_counts_rounds(line, loader):
    history = fit(line(), loader(), loader(2), max_steps=3000, lr=1e-30, patience=3, **QUIET)
    assert len(history) == 4


def test_a_bad_gradient_skips_its_batch_and_is_counted(line, loader):
    model = line(bad=(1, 2, 3))
    before = weights(model)
    history = fit(model, loader(), max_steps=3, **QUIET)
    assert torch.equal(weights(model), before)
    assert history["skipped"].tolist() == [3]
    healthy = line(bad=(2,))
    history = fit(healthy, loader(), max_steps=30, **QUIET)
    assert history["skipped"].tolist() == [1]
    assert torch.isfinite(weights(healthy)).all()
    assert not torch.equal(weights(healthy), before)


def test_ten_bad_gradients_in_a_row_end_the_training_and_name_the_weights(line, loader):
    bad = tuple(range(5, 5 + training_module.MAX_SKIPPED))
    with pytest.raises(NonFiniteError, match=r"10 batches in a row.*gradient of 'layers.0.weight'"):
        fit(line(bad=bad), loader(), max_steps=100, **QUIET)
    fit(line(bad=bad[:-1]), loader(), max_steps=40, **QUIET)


def test_a_failed_solve_skips_its_batch(line, loader):
    history = fit(line(fails=(2, 3)), loader(), max_steps=30, **QUIET)
    assert history["skipped"].tolist() == [2]
    assert math.isfinite(history["train_loss"].iloc[0])
    with pytest.raises(NonFiniteError, match="the field is NaN"):
        fit(line(fails=tuple(range(1, 20))), loader(), max_steps=30, **QUIET)


def test_nothing_stays_on_disk_without_a_folder(line, loader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(line(), loader(), loader(2), max_steps=30, **QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_metrics_and_one_checkpoint_without_pickle(line, loader, tmp_path):
    fit(line(), loader(), loader(2), max_steps=60, dir=tmp_path / "run", **QUIET)
    files = sorted(p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("*") if p.is_file())
    assert files[0] == "checkpoint/checkpoint.json"
    assert files[1].startswith("checkpoint/weights")
    assert files[2:] == ["metrics.csv"]


def test_a_folder_with_a_training_is_not_overwritten_by_accident(line, loader, tmp_path):
    fit(line(), loader(), max_steps=30, dir=tmp_path, **QUIET)
    with pytest.raises(FileExistsError, match="resume=True"):
        fit(line(), loader(), max_steps=30, dir=tmp_path, **QUIET)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        fit(line(), loader(), max_steps=30, dir=tmp_path / "other", resume=True, **QUIET)


def test_resuming_with_other_data_is_refused(line, loader, tmp_path):
    fit(line(), loader(), max_steps=30, dir=tmp_path, **QUIET)
    with pytest.raises(DataError, match="fingerprint"):
        fit(line(), loader(seed=1), max_steps=60, dir=tmp_path, resume=True, **QUIET)


def test_a_folder_that_cannot_be_made_fails_before_training(line, loader, tmp_path):
    (tmp_path / "file").write_text("")
    model = line()
    with pytest.raises(CheckpointWriteError, match="writable"):
        fit(model, loader(), max_steps=30, dir=tmp_path / "file" / "run", **QUIET)
    assert model.steps == []


@pytest.mark.parametrize(("wrong", "right"), [("max_step", "max_steps"), ("acelerator", "accelerator")])
def test_a_misspelt_argument_is_a_type_error_with_a_hint(line, loader, wrong, right):
    with pytest.raises(TypeError, match=f"{wrong}.*did you mean '{right}'"):
        fit(line(), loader(), **{wrong: 3})


@pytest.mark.parametrize("argument", [{"max_steps": -1}, {"lr": 0.0}, {"lr": float("nan")}])
def test_impossible_settings_are_refused(line, loader, argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        fit(line(), loader(), **argument)


def test_no_windows_is_a_clear_error(line, loader):
    with pytest.raises(DataError, match="too short"):
        fit(line(), loader(0), max_steps=3)


def test_batches_of_very_long_windows_are_told_before_they_are_read(line, loader, monkeypatch):
    monkeypatch.setattr(_loop, "LONG", 19)
    with pytest.warns(DataWarning, match=r"4 windows of up to 5 rows, 20 in all.*length=.*batch_size="):
        fit(line(), loader(), max_steps=1, **QUIET)
    monkeypatch.setattr(_loop, "LONG", 20)
    monkeypatch.setattr(_loop, "LONGEST", 4)
    with pytest.warns(DataWarning, match=r"4 windows of up to 5 rows, 20 in all"):
        fit(line(), loader(), max_steps=1, **QUIET)
    monkeypatch.setattr(_loop, "LONGEST", 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        fit(line(), loader(), max_steps=1, **QUIET)


def test_windows_of_any_floating_type_are_told_apart(line, loader):
    first = next(iter(loader())).map(lambda batch: batch.to(torch.bfloat16))
    other = next(iter(loader(seed=1))).map(lambda batch: batch.to(torch.bfloat16))
    told = [_loop._fingerprint(window, 1, line(), (Exponential(0.1), 0, 0.0)) for window in (first, first, other)]
    assert told[0] == told[1] != told[2]


@pytest.mark.parametrize("what", ["inputs", "static", "noise", "start", "labels"])
def test_windows_that_differ_in_what_stands_beside_the_values_are_told_apart(line, loader, what):
    first = next(iter(loader()))
    target = first.target
    like = {"start": target.times, "static": target.values[:, 0], "labels": target.values[:, 0]}
    beside = torch.zeros_like(like.get(what, target.values)) - float(what == "start")
    windows = [first, *(Window(first.context, replace(target, **{what: x})) for x in (beside, beside + 0.5))]
    told = [_loop._fingerprint(window, 1, line(), (Exponential(0.1), 0, 0.0)) for window in windows]
    assert len(set(told)) == 3


def test_batches_skipped_in_a_row_are_counted_across_a_resumption(line, loader, tmp_path):
    half = training_module.MAX_SKIPPED // 2
    fit(line(bad=tuple(range(31 - half, 31))), loader(), max_steps=30, dir=tmp_path, **QUIET)
    with pytest.raises(NonFiniteError, match="10 batches in a row"):
        fit(line(bad=tuple(range(1, 1 + half))), loader(), max_steps=60, dir=tmp_path, resume=True, **QUIET)


def test_zero_epochs_warn(line, loader):
    with pytest.warns(UserWarning, match="max_epochs"):
        history = fit(line(), loader(), max_epochs=0)
    assert history.empty


def test_epochs_are_passes_over_the_loader(line, loader):
    assert fit(line(), loader(7), max_epochs=8, **QUIET)["step"].tolist() == [28, 56]


def test_arguments_go_to_the_trainer(line, loader):
    seen = []

    class Spy(pl.Callback):
        def on_train_start(self, trainer, module):
            seen.append((trainer.gradient_clip_val, trainer.accumulate_grad_batches))

    fit(line(), loader(), max_steps=2, callbacks=[Spy()], gradient_clip_val=7.0, accumulate_grad_batches=2, **QUIET)
    assert seen == [(7.0, 2)]


def test_fit_is_quiet_but_for_its_bar(line, loader, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(line(), loader(), loader(2), max_steps=30, accelerator="cpu")
    out, err = capfd.readouterr()
    assert out == ""
    assert "fit: " in err
    assert "Trainer" not in err
    fit(line(), loader(), max_steps=2, **QUIET)
    assert capfd.readouterr().err == ""


def test_a_keyboard_interrupt_stays_one(line, loader):
    class Press(pl.Callback):
        def on_train_batch_end(self, *args):
            raise KeyboardInterrupt

    import signal

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(line(), loader(), max_steps=30, callbacks=[Press()], **QUIET)
    assert signal.getsignal(signal.SIGINT) is handler
