"""The shell, from words to files and exit codes."""

import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn import models
from ctdyn._checks import DataWarning
from ctdyn.cli import main
from ctdyn.cli._commands import COMMANDS
from ctdyn.cli._files import replacing_folder
from ctdyn.cli._fitting import CLASSES
from ctdyn.cli._main import normalize, parse
from ctdyn.cli._options import ModelName, Table, Training
from ctdyn.forecast import Forecaster


SMALL = ["--latent-size", "3", "--hidden", "[8]", "--encoder-size", "8", "--max-steps", "4"]


def waves(num_series: int = 8, rows: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frames = []
    for name in range(num_series):
        hours = np.sort(rng.uniform(0, 48, rows))
        hr = 70 + 5 * np.sin(hours / 4 + name)
        frame = pd.DataFrame({"patient": name, "hours": hours, "hr": hr, "bp": 110 + rng.normal(size=rows)})
        frames.append(frame.mask(rng.random(frame.shape) < [0, 0, 0.2, 0.4]))
    return pd.concat(frames)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a fitted run."""
    folder = tmp_path_factory.mktemp("cli")
    waves().to_csv(folder / "waves.csv", index=False)
    waves().to_parquet(folder / "waves.parquet", index=False)
    columns = ["--id", "patient", "--time", "hours"]
    assert main(["fit", str(folder / "waves.csv"), *columns, *SMALL, "--out", str(folder / "run")]) == 0
    return folder


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    """What a command that must fail says on standard error: one line, no traceback."""
    capsys.readouterr()
    assert main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    if code == 1:
        assert said.err.startswith(f"ctdyn {arguments[0]}: error: ")
        assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("name", ["waves.csv", "waves.parquet"])
def test_describe(home: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(home / name), "--id", "patient", "--time", "hours"]) == 0
    said = capsys.readouterr().out
    assert "hr" in said
    assert "bp" in said


def test_fit_writes_a_run_and_its_baselines(home: Path) -> None:
    assert json.loads((home / "run" / "table.json").read_text())["id"] == "patient"
    baselines = {path.name for path in (home / "run" / "baselines").iterdir()}
    assert baselines == {"hold-last", "linear-interpolation", "own-mean", "gp"}
    assert not [path for path in home.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_forecast_writes_a_table_and_a_picture(home: Path, tmp_path: Path, suffix: str) -> None:
    out, plot = tmp_path / f"forecast{suffix}", tmp_path / "forecast.png"
    words = ["--horizon", "12", "--out", str(out), "--plot", str(plot), "--quantiles", "0.1,0.5,0.9", "--samples", "9"]
    assert main(["forecast", str(home / "run"), str(home / "waves.csv"), *words]) == 0
    frame = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert set(frame["id"]) == set(range(8))
    assert set(frame["channel"]) == {"hr", "bp"}
    assert (frame["q0.1"] <= frame["q0.5"]).all()
    assert (frame["q0.5"] <= frame["q0.9"]).all()
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, plot.name])


def test_interpolate_to_standard_output(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    words = ["--at", "6,12.5", "--samples", "5"]
    assert main(["interpolate", str(home / "run"), str(home / "waves.parquet"), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("id,time,channel,")
    assert len(lines) == 1 + 8 * 2 * 2


def test_times_from_a_file(home: Path, tmp_path: Path) -> None:
    at, out = tmp_path / "at.csv", tmp_path / "filled.csv"
    asked = pd.DataFrame({"patient": np.repeat(np.arange(8), 2), "hours": np.arange(16) + 0.5})
    asked.to_csv(at, index=False)
    words = ["--at", str(at), "--out", str(out), "--samples", "5"]
    assert main(["interpolate", str(home / "run"), str(home / "waves.csv"), *words]) == 0
    answered = pd.read_csv(out).query("channel == 'hr'")
    np.testing.assert_array_equal(answered["time"], asked["hours"])
    np.testing.assert_array_equal(answered["id"], asked["patient"])


def test_a_file_of_times_is_laid_out_as_a_parquet_file_that_says_so_itself(tmp_path: Path) -> None:
    from ctdyn.data import from_pandas

    data, run, out = (str(tmp_path / name) for name in ("waves.parquet", "run", "out.csv"))
    from_pandas(waves(3), id="patient", time="hours", values=["hr"]).to_parquet(data)
    assert main(["fit", data, "--model", "own-mean", "--baselines", "false", "--out", run]) == 0
    asked = pd.DataFrame({"id": [0, 1, 2], "time": [50.0, 51.0, 52.0]})
    for name in ("at.csv", "at.csv.gz"):
        asked.to_csv(tmp_path / name, index=False)
        assert main(["forecast", run, data, "--at", str(tmp_path / name), "--samples", "2", "--out", out]) == 0
        pd.testing.assert_frame_equal(pd.read_csv(out)[["id", "time"]], asked)


@pytest.mark.parametrize("cut", [[], ["--cut", "30"]])
def test_evaluate_shows_the_baselines(home: Path, cut: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(home / "run"), str(home / "waves.csv"), *cut, "--samples", "5"]) == 0
    said = capsys.readouterr().out
    for word in ("run", "hold-last", "linear-interpolation", "own-mean", "gp", "crps", "coverage 0.9"):
        assert word in said


def test_evaluate_leaves_out_what_counts_do_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = str(tmp_path / "visits.csv"), str(tmp_path / "run")
    rng = np.random.default_rng(0)
    waves(4).assign(hr=rng.poisson(3.0, 80)).drop(columns="bp").to_csv(data, index=False)
    words = ["--id", "patient", "--time", "hours", "--kinds", "hr=count", "--model", "own-mean", "--out", run]
    assert main(["fit", data, *words, "--baselines=false"]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, data, "--samples", "5"]) == 0
    table, note = capsys.readouterr().out.split("No ")
    assert "crps" in table
    assert "nan" not in table
    assert "coverage 0.9" not in table
    assert "coverage 0.5, coverage 0.8, coverage 0.9: every channel is" in note


def test_options_from_a_file(home: Path, tmp_path: Path) -> None:
    config = tmp_path / "fit.yaml"
    config.write_text("id: patient\ntime: hours\nvalues: [hr]\nmodel: own-mean\nbaselines: false\n")
    out = tmp_path / "run"
    assert main(["fit", str(home / "waves.csv"), "--config", str(config), "--out", str(out)]) == 0
    assert json.loads((out / "table.json").read_text())["values"] == ["hr"]


def test_dates_and_lengths_of_time(tmp_path: Path) -> None:
    frame = waves(3).drop(columns="bp")
    frame["hours"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(frame["hours"].round(4), unit="h")
    data, run, out = (str(tmp_path / name) for name in ("data.csv", "run", "forecast.csv"))
    frame.to_csv(data, index=False)
    columns = ["--id", "patient", "--time", "hours"]
    assert main(["fit", data, *columns, "--model", "hold-last", "--baselines", "false", "--out", run]) == 0
    assert main(["forecast", run, data, "--horizon", "1D", "--out", out]) == 0
    ends = pd.to_datetime(frame.dropna()["hours"]).groupby(frame.dropna()["patient"]).max()
    last = pd.to_datetime(pd.read_csv(out).groupby("id")["time"].max())
    assert ((last - ends).dt.round("1min") == pd.Timedelta("1D")).all()


def test_a_long_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = waves(3).melt(["patient", "hours"], var_name="name", value_name="reading").dropna()
    long.to_csv(tmp_path / "long.csv", index=False)
    words = ["--id", "patient", "--time", "hours", "--variable", "name", "--value", "reading"]
    assert main(["describe", str(tmp_path / "long.csv"), *words]) == 0
    assert "bp" in capsys.readouterr().out


def test_what_the_columns_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `from_pandas` can be told of them, the shell can."""
    frame = waves(4).dropna().assign(alive=1, rain=3.0, outcome=lambda x: x["patient"] % 2)
    frame["begin"] = frame["hours"] - 1.5
    frame.loc[len(frame)] = [9, 1.0, None, None, None, None, 0, 1.0]
    data, run = str(tmp_path / "data.csv"), tmp_path / "run"
    frame.to_csv(data, index=False)
    words = ["--id", "patient", "--time", "hours", "--labels", "outcome", "--start", "begin", "--sums", "rain"]
    words += ["--kinds", "alive=binary,hr=positive", "--units", "hr=1/min,rain=mm", "--time-unit", "hour"]
    assert "drop_empty" in fails(["describe", data, *words], capsys)
    words.append("--drop-empty")
    capsys.readouterr()
    assert main(["describe", data, *words]) == 0
    said = capsys.readouterr().out
    assert "4, with" in said
    assert "outcome" not in said
    for row in (("hr", "1/min", "positive"), ("alive", "binary"), ("rain", "mm/hour", "real")):
        assert any(line.split()[: len(row)] == list(row) for line in said.splitlines()), row
    (rain,) = (line.split() for line in said.splitlines() if line.startswith("rain"))
    assert "2" in rain, "a sum of 3 over 1.5 hours is 2 an hour"
    assert "--kinds says one thing of each channel" in fails(["describe", data, "--kinds", "alive"], capsys)
    assert main(["fit", data, *words, "--model", "own-mean", "--baselines=false", "--out", str(run)]) == 0
    config = tmp_path / "fit.yaml"
    config.write_text("id: patient\ntime: hours\nkinds: {alive: binary}\nlabels: [outcome]\ndrop_empty: true\n")
    assert main(["describe", data, "--config", str(config)]) == 0


def test_inputs_that_are_known_ahead(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    frame = waves(4).drop(columns="bp").assign(dose=lambda x: np.sin(x["hours"]))
    past, ahead = frame[frame["hours"] < 30], frame[frame["hours"] >= 30].drop(columns="hr")
    for name, part in (("past", past), ("ahead", ahead), ("more", ahead.assign(dose=50.0))):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    columns = ["--id", "patient", "--time", "hours", "--inputs", "dose", *SMALL]
    assert main(["fit", str(tmp_path / "past.csv"), *columns, "--out", str(tmp_path / "run")]) == 0
    # The model reads them; that the baselines beside it do not is no news.
    assert not [one for one in recwarn if "does not read" in str(one.message)]
    found = []
    for name in ("ahead", "more"):
        words = ["--at", str(tmp_path / f"{name}.csv"), "--samples", "3", "--out", str(tmp_path / "out.csv")]
        assert main(["forecast", str(tmp_path / "run"), str(tmp_path / "past.csv"), *words]) == 0
        found.append(pd.read_csv(tmp_path / "out.csv"))
    np.testing.assert_allclose(found[0]["time"], ahead["hours"])
    assert not np.allclose(found[0]["mean"], found[1]["mean"])
    words = ["--horizon", "5", "--samples", "3", "--out", str(tmp_path / "out.csv")]
    with pytest.warns(DataWarning, match=r"values are held.*in a shell by --at FILE"):
        assert main(["forecast", str(tmp_path / "run"), str(tmp_path / "past.csv"), *words]) == 0


# -- faults


def test_a_missing_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.csv" in fails(["describe", str(home / "nowhere.csv")], capsys)


def test_a_missing_column_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(["describe", str(home / "waves.csv"), "--id", "stay", "--time", "hours"], capsys)
    assert "stay" in said


@pytest.mark.parametrize("name", ["waves.csv", "waves.parquet"])
def test_a_truncated_file_leaves_no_run(
    home: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (home / name).read_bytes()
    cut = tmp_path / name
    # The CSV is cut after the first field of a line.
    end = content.index(b",", content.index(b"\n", 300)) if name.endswith("csv") else len(content) // 2
    cut.write_bytes(content[:end])
    columns = ["--id", "patient", "--time", "hours"]
    fails(["fit", str(cut), *columns, *SMALL, "--out", str(tmp_path / "run")], capsys)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_strings_in_a_value_column(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = waves(2).astype({"hr": object})
    frame.iloc[3, 2] = "high"
    frame.to_csv(tmp_path / "bad.csv", index=False)
    said = fails(["fit", str(tmp_path / "bad.csv"), "--id", "patient", "--time", "hours"], capsys)
    assert "series 0" in said
    assert "hr" in said


def test_an_interrupted_fit_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Forecaster, "save", interrupt)
    words = [
        "--id",
        "patient",
        "--time",
        "hours",
        "--model",
        "own-mean",
        "--baselines=false",
        "--out",
        str(tmp_path / "run"),
    ]
    assert "interrupted" in fails(["fit", str(home / "waves.csv"), *words], capsys, code=130)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_not_replaced_unasked(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", str(home / "waves.csv"), "--id", "patient", "--time", "hours", "--model", "own-mean"]
    words.append("--baselines=false")
    run = tmp_path / "run"
    assert main([*words, "--out", str(run)]) == 0
    before = (run / "table.json").stat().st_mtime_ns
    assert "--overwrite" in fails([*words, "--out", str(run)], capsys)
    assert (run / "table.json").stat().st_mtime_ns == before
    assert main([*words, "--out", str(run), "--overwrite"]) == 0
    assert (run / "table.json").stat().st_mtime_ns != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    assert "not a run" in fails([*words, "--out", str(tmp_path / "mine"), "--overwrite"], capsys)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--horizon"),
        (["--horizon", "1", "--at", "2"], "--horizon"),
        (["--horizon", "-3"], "positive"),
        (["--horizon", "3D"], "3D"),
        (["--at", "soon"], "soon"),
        (["--horizon", "1", "--out", "forecast.xlsx"], ".parquet"),
        (["--horizon", "1", "--out", "no/such/folder/forecast.csv"], "does not exist"),
        (["--horizon", "1", "--plot", "forecast.jpeg"], ".png"),
        (["--horizon", "1", "--quantiles", "5,50,95"], "0.05,0.5,0.95"),
        (["--horizon", "1", "--samples", "0"], "at least 1"),
    ],
)
def test_wrong_values(home: Path, words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in fails(["forecast", str(home / "run"), str(home / "waves.csv"), *words], capsys)


def test_other_channels_than_those_of_the_run(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waves(2).rename(columns={"bp": "weight"}).to_csv(tmp_path / "other.csv", index=False)
    assert "weight" in fails(["forecast", str(home / "run"), str(tmp_path / "other.csv"), "--horizon", "1"], capsys)


def test_a_folder_that_is_no_run(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ctdyn fit" in fails(["forecast", str(tmp_path), str(home / "waves.csv"), "--horizon", "1"], capsys)
    (tmp_path / "table.json").write_text('{"surprise": 1}')
    assert "damaged" in fails(["forecast", str(tmp_path), str(home / "waves.csv"), "--horizon", "1"], capsys)


@pytest.mark.parametrize(
    "words", [[], ["dance"], ["fit"], ["fit", "x.csv", "--model", "oracle"], ["fit", "x.csv", "--x"]]
)
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "error" in fails(words, capsys, code=2)


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--static", "age", "height"], "--static age,height"),
        (["--static", "age,", "height", "--id", "patient"], "--static age,height"),
        (["--kinds=hr=count", "--values", "hr", "bp", "sex"], "--values hr,bp"),
        (["--seed", "1", "2"], None),
        (["--values", "hr", "--x"], None),
    ],
)
def test_several_names_go_into_one_word(words: list[str], cure: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(["fit", "x.csv", *words], capsys, code=2)
    assert "nrecognized arguments" in said
    assert ("one word" in said) == (cure is not None)
    assert (cure or "") in said


def test_a_failed_fit_leaves_the_old_run(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "weights").write_text("old")

    def write_half() -> None:
        with replacing_folder(target) as path:
            path.mkdir()
            (path / "weights").write_text("ne")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_half()
    assert (target / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


# -- what the command line is made of


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"  ctdyn {name} " in said or f"  ctdyn {name}\n" in said, "help shows no example"
    assert "--config" in said


def test_help_does_not_import_torch() -> None:
    code = "import sys\nfrom ctdyn.cli import main\nmain(['fit', '--help'])\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_package_is_the_command() -> None:
    said = subprocess.run([sys.executable, "-m", "ctdyn", "--help"], capture_output=True, text=True, check=True).stdout
    assert "ctdyn describe vitals.csv" in said
    assert subprocess.run([sys.executable, "-m", "ctdyn", "dance"], capture_output=True, check=False).returncode == 2


def test_both_spellings() -> None:
    assert normalize(["fit", "--max-steps", "3", "--overwrite"]) == ["fit", "--max_steps", "3", "--overwrite=true"]
    assert normalize(["--overwrite", "false", "--horizon=-1"]) == ["--overwrite", "false", "--horizon=-1"]
    _, arguments = parse(["fit", "data.csv", "--max-steps=3", "--values", "hr,bp"])
    assert arguments["training"] == Training(max_steps=3)
    assert arguments["table"] == Table(values="hr,bp")
    assert arguments["overwrite"] is False


def test_every_named_model_can_be_fitted_by_name() -> None:
    """All but those that are put together from parts."""
    composed = {"FilteringModel", "LatentVAE", "Recalibrated", "Reencoded", "Refined", "SequenceModel", "SideBySide"}
    named = {
        name
        for name in models.__all__
        if inspect.isclass(getattr(models, name))
        and issubclass(getattr(models, name), models.Model)
        and not inspect.isabstract(getattr(models, name))
    }
    assert named - composed == set(CLASSES.values())
    assert set(CLASSES) == set(typing.get_args(ModelName))


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"latent-ode"}))
def test_models_by_name(home: Path, tmp_path: Path, name: str) -> None:
    run = str(tmp_path / name)
    words = ["--id", "patient", "--time", "hours", "--max-steps", "2", "--model", name, "--baselines", "false"]
    assert main(["fit", str(home / "waves.csv"), *words, "--out", run]) == 0
    out = tmp_path / "out.csv"
    words = ["--at", "3.5,50", "--samples", "3", "--out", str(out)]
    assert main(["interpolate", run, str(home / "waves.csv"), *words]) == 0
    assert len(pd.read_csv(out)) > 0


def test_a_size_that_a_model_does_not_have(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--id", "patient", "--time", "hours", "--out", str(tmp_path / "run"), "--encoder-size", "8"]
    said = fails(["fit", str(home / "waves.csv"), *words, "--model", "gp"], capsys)
    assert "gp has no encoder_size; it takes no sizes." in said
    said = fails(["fit", str(home / "waves.csv"), *words, "--model", "markovian-gp-vae"], capsys)
    assert "what it can be told is latent_size." in said
    said = fails(["fit", str(home / "waves.csv"), *words, "--model", "ls4"], capsys)
    assert "what it can be told is latent_size, width, dt." in said


def test_columns_that_a_model_does_not_read(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--id", "patient", "--time", "hours", "--inputs", "bp", "--out", str(tmp_path / "run")]
    data = tmp_path / "driven.csv"
    waves().assign(bp=1.0).to_csv(data, index=False)
    said = fails(["fit", str(data), *words, "--model", "koopman-vae"], capsys)
    assert "koopman-vae would not read bp; leave them out, or take latent-ode." in said
