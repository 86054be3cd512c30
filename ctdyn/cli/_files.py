"""What the shell reads and writes: nothing is left half-written, and what cannot be written is refused at the start."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import Names, Output, Pairs, Table


if TYPE_CHECKING:
    from pandas import DataFrame

    from ..data import SeriesSet
    from ..forecast import Forecast

__all__ = [
    "TABLE",
    "check_output",
    "check_run_folder",
    "check_target",
    "number_or_text",
    "read_table",
    "read_times",
    "replacing_folder",
    "write_figure",
    "write_forecast",
    "write_frame",
]

#: Where a run remembers how its files are laid out.
TABLE = "table.json"


def read_table(path: str, table: Table) -> SeriesSet:
    """The series of a file."""
    from ..data import read

    return read(path, **said_of(table))


def said_of(table: Table) -> dict[str, Any]:
    """What the options say of a table; what is left at its default is not said: a parquet file of ours knows itself."""
    given = {field.name: getattr(table, field.name) for field in fields(table)}
    given = {field.name: given[field.name] for field in fields(table) if given[field.name] != field.default}
    for name in ("values", "noise", "inputs", "static", "labels", "sums"):
        if name in given:
            given[name] = split_names(given[name])
    for name in ("units", "kinds"):
        if name in given:
            given[name] = split_pairs(given[name], name)
    return given


def split_names(names: Names) -> list[str] | None:
    """Columns given as hr,bp or as a list."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",") if name.strip()]
    return names


def split_pairs(pairs: Pairs, option: str) -> dict[str, str] | None:
    """What is said of each channel, given as hr=1/min,bp=mmHg or as a mapping."""
    if not isinstance(pairs, str):
        return pairs
    found = [(name.strip(), value.strip()) for name, _, value in (word.partition("=") for word in pairs.split(","))]
    if not all(name and value for name, value in found):
        raise ValueError(f"--{option} says one thing of each channel, as hr=...,bp=...; got {pairs}.")
    return dict(found)


def number_or_text(value: str | float) -> str | float:
    """A time or a length of time: a number where it reads as one, else left as text for the clock to parse."""
    try:
        return float(value)
    except ValueError:
        return str(value).strip()


def read_times(at: str | float | None, table: Table, data: str) -> Any:
    """The value of `--at`: times for all series, or a file's times, intervals (`--start`) and inputs (`--inputs`)."""
    if at is None:
        return None
    path = Path(str(at))
    if not path.name.endswith((".csv", ".csv.gz", ".parquet", ".pq")):
        return [number_or_text(word) for word in str(at).split(",")]
    from ..data import from_pandas, read
    from ..data.storage import columns_of, read_frame

    if columns_of(path):
        return read(path, values=[])
    # It is laid out as the data, and their file may be what says how.
    said = {**columns_of(data), **said_of(table)}
    frame = read_frame(path, said.get("id"))[0]
    columns = {name: said[name] for name in ("id", "time", "time_unit") if name in said}
    if said.get("start") in frame:
        columns["start"] = said["start"]
    # Inputs that are not known ahead stay what they were; the answer says so.
    columns["inputs"] = [name for name in said.get("inputs") or () if name in frame]
    try:
        return from_pandas(frame, values=[], **columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_target(path: str, suffixes: tuple[str, ...], option: str) -> None:
    """Refuse a file that could not be written, before any work is done."""
    if Path(path).suffix not in suffixes:
        raise ValueError(f"{option} must end in {' or '.join(suffixes)}; got {path}.")
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{option} {path}: the folder {Path(path).parent} does not exist; make it first.")


def check_run_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a run folder that could not be written, or that holds something else."""
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"--out {folder}: the folder {folder.parent} does not exist; make it first.")
    if folder.exists() and not overwrite:
        raise ValueError(f"{folder} exists; choose another --out, or pass --overwrite to replace it.")
    if folder.exists() and not (folder / TABLE).is_file():
        raise ValueError(f"{folder} is not a run of ctdyn, so --overwrite does not replace it; choose another --out.")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Somewhere to write a folder; it takes its place at once when the block ends well, and else not at all."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
    try:
        yield scratch / path.name
        if path.is_dir():
            path.rename(scratch / "replaced")
        (scratch / path.name).rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_frame(frame: DataFrame, out: str | None) -> None:
    """A table into a file by its suffix, or as CSV on standard output."""
    from ..data.storage import write_csv, write_parquet

    if out is None:
        frame.to_csv(sys.stdout, index=False)
    elif out.endswith(".csv"):
        write_csv(frame, out)
    else:
        write_parquet(frame, out)


def write_figure(figure: Any, path: str) -> None:
    """A figure into a PNG file."""
    from ..data.storage import replacing

    with replacing(Path(path)) as target:
        figure.savefig(target, format="png", dpi=150)


def check_output(output: Output) -> list[float]:
    """Refuse what cannot be written before any work is done; the quantiles as numbers."""
    if output.out is not None:
        check_target(output.out, (".csv", ".parquet"), "--out")
    if output.plot is not None:
        check_target(output.plot, (".png",), "--plot")
    words = output.quantiles.split(",") if isinstance(output.quantiles, str) else output.quantiles
    try:
        levels = [float(word) for word in words]
    except ValueError:
        levels = []
    if not levels or not all(0 < level < 1 for level in levels):
        raise ValueError(f"--quantiles are numbers between 0 and 1, as 0.05,0.5,0.95; got {output.quantiles}.")
    return levels


def write_forecast(forecast: Forecast, levels: list[float], output: Output) -> None:
    """The mean, the spread and the quantiles as a table, and the plot."""
    if output.plot is not None:
        write_figure(forecast.plot(), output.plot)
    write_frame(forecast.to_frame(levels), output.out)
