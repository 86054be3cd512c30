"""The commands, as functions whose signatures are the command line.

Torch, pandas and Lightning are imported by the command that needs them, so that `--help` answers at once; annotations
name no class of theirs, because jsonargparse resolves every annotation that it finds.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ._files import (
    TABLE,
    check_output,
    check_run_folder,
    check_target,
    number_or_text,
    read_table,
    read_times,
    replacing_folder,
    write_figure,
    write_forecast,
    write_frame,
)
from ._fitting import make_baselines, make_model, open_run, split_series, train_model
from ._options import Architecture, ModelName, Output, Table, Training


__all__ = ["COMMANDS"]

#: The folder of a run that holds the baselines fitted to the same series.
BASELINES = "baselines"
#: The scores that fit on a screen.
SHOWN = ("mse", "mae", "nll", "crps", "interval_score 0.9", "coverage 0.5", "coverage 0.8", "coverage 0.9")


def describe_command(data: str, table: Table) -> None:
    """Say what is in a file: series, channels, units, gaps, density, and what looks odd.

    Args:
        data: CSV or parquet file.
        table: how it is laid out.
    """
    print(read_table(data, table).describe())


def fit_command(
    data: str,
    table: Table,
    architecture: Architecture,
    training: Training,
    *,
    model: ModelName = "latent-ode",
    out: str = "run",
    overwrite: bool = False,
    baselines: bool = True,
) -> None:
    """Fit a model to the series of a file and save it, with the baselines beside it, in a folder.

    Args:
        data: CSV or parquet file of training series.
        table: how it is laid out.
        architecture: the size of the model.
        training: how it is trained.
        model: what to fit, by its name; the table of ctdyn.models says what each can do.
        out: the folder of the run.
        overwrite: replace the folder if there is one.
        baselines: fit the baselines too, for ctdyn evaluate; false saves their time.
    """
    from ..forecast.queries import understood

    folder = Path(out)
    check_run_folder(folder, overwrite)
    series = read_table(data, table)
    train, validation = split_series(series, training.validation, training.seed)
    forecaster = train_model(make_model(model, architecture, series), training, train, validation)
    with replacing_folder(folder) as target:
        forecaster.save(target)
        (target / TABLE).write_text(json.dumps(asdict(table), indent=1), encoding="utf-8")
        with understood():
            for name, baseline in make_baselines(series).items() if baselines else ():
                train_model(baseline, training, train, None).save(target / BASELINES / name)
    held_out = f", {len(validation)} held out to decide when to stop" if validation is not None else ""
    print(
        f"Fitted {model} to {len(train)} series{held_out}. Saved in {folder}; next: ctdyn forecast {folder} {data} ..."
    )


def interpolate_command(run: str, data: str, output: Output, *, at: str | float | None = None) -> None:
    """Fill the gaps: what was not observed, or any times inside the series, with intervals.

    Args:
        run: the folder that `ctdyn fit` wrote.
        data: CSV or parquet file with the same columns.
        output: what is written, and where.
        at: times, as 1.5,2.0 or 2001-03-01,2001-04-01, or a CSV or parquet file of times (with the id column, per
            series; with columns of inputs and start, these too); left out: the rows with empty cells, and a regular
            grid.
    """
    levels = check_output(output)
    forecaster, table = open_run(run)
    series = read_table(data, table)
    times = read_times(at, table, data)
    write_forecast(forecaster.interpolate(series, times, num_samples=output.samples), levels, output)


def forecast_command(
    run: str, data: str, output: Output, *, horizon: str | float | None = None, at: str | float | None = None
) -> None:
    """Forecast what follows the last observation of each series, with intervals.

    Args:
        run: the folder that `ctdyn fit` wrote.
        data: CSV or parquet file with the same columns; its series are the past.
        output: what is written, and where.
        horizon: how far, as a number on the data's clock, or a length of time as 30D.
        at: the times instead, as for interpolate.
    """
    levels = check_output(output)
    if (horizon is None) == (at is None):
        raise ValueError(
            "say how far to forecast: either --horizon 24 (or 30D where the times are dates), or --at TIMES."
        )
    forecaster, table = open_run(run)
    series = read_table(data, table)
    length = None if horizon is None else number_or_text(horizon)
    times = read_times(at, table, data)
    write_forecast(forecaster.forecast(series, length, at=times, num_samples=output.samples), levels, output)


def evaluate_command(
    run: str,
    data: str,
    *,
    cut: str | float | None = None,
    hidden: float = 0.3,
    out: str | None = None,
    samples: int = 200,
) -> None:
    """Score a run on series that it has not seen, beside the baselines fitted to the same training series.

    Args:
        run: the folder that `ctdyn fit` wrote.
        data: CSV or parquet file of test series with the same columns.
        cut: forecast what follows this time (a number or a date) from what comes before.
        hidden: without --cut, the share of the rows that is hidden and filled.
        out: .csv or .parquet file for the scores; left out: the main ones on standard output.
        samples: sampled trajectories behind the scores.
    """
    import pandas as pd

    from ..data import Extrapolate, Interpolate
    from ..forecast import load
    from ..metrics import summarize

    if out is not None:
        check_target(out, (".csv", ".parquet"), "--out")
    forecaster, table = open_run(run)
    series = read_table(data, table)
    task = Interpolate(keep=1 - hidden) if cut is None else Extrapolate(cut=number_or_text(cut))
    runs = {Path(run).name: forecaster}
    runs |= {path.name: load(path) for path in sorted((Path(run) / BASELINES).glob("*"))}
    rows = {name: summarize(one.score(series, task, num_samples=samples)) for name, one in runs.items()}
    scores = pd.DataFrame(rows).T.rename_axis("model").reset_index()
    if out is not None:
        write_frame(scores, out)
    else:
        shown = scores.set_index("model")[[name for name in SHOWN if name in scores]]
        # Where single values have probabilities an interval covers more than its level; see `metrics.evaluate`.
        said = shown.dropna(axis="columns", how="all")
        print(said.map("{:.4g}".format).to_string())
        if absent := [name for name in shown if name not in said]:
            print(f"No {', '.join(absent)}: every channel is binary, categorical, a count or nonnegative.")


def demo_command(out: str = ".", seed: int = 0, quick: bool = False) -> None:
    """Fit the Mauna Loa CO2 record at irregular times, fill its gaps and forecast years ahead.

    Args:
        out: folder for forecast.csv and forecast.png.
        seed: seed of everything random.
        quick: a few steps and one table only, to see that it runs.
    """
    from ..demo import run

    folder = Path(out)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; make it first, or choose another --out.")
    result = run(seed=seed, quick=quick)
    print(result.report)
    write_figure(result.figure, str(folder / "forecast.png"))
    write_frame(result.frame, str(folder / "forecast.csv"))
    print(f"\nWrote {folder / 'forecast.csv'} and {folder / 'forecast.png'}.")


COMMANDS: dict[str, Callable[..., None]] = {
    "describe": describe_command,
    "fit": fit_command,
    "interpolate": interpolate_command,
    "forecast": forecast_command,
    "evaluate": evaluate_command,
    "demo": demo_command,
}
