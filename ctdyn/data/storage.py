"""CSV and parquet in and out: what is read is complete or refused; what is written appears whole or not at all."""

from __future__ import annotations

import csv
import importlib.resources
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._checks import DataError, DataWarning, few
from ._pandas import DataFrame
from .frames import from_pandas
from .series_set import SeriesSet


__all__ = ["co2", "columns_of", "read", "read_frame", "replacing", "write_csv", "write_parquet", "write_set"]

_KEY = b"ctdyn.columns"
_TAIL = 65536


def read(path: str | Path, **columns: Any) -> SeriesSet:
    """Irregular series from a CSV or parquet file, or from a folder of parquet files.

    Args:
        path: `.csv`, `.csv.gz`, `.parquet` or a folder. Times in a CSV file are numbers or ISO 8601.
        **columns: the arguments of `from_pandas`, which say what the columns are. A parquet file that
            `SeriesSet.to_parquet` wrote says so itself; what is given here, other than None, goes before it.

    Raises:
        DataError: the file is truncated or malformed, or one of the faults that `from_pandas` lists.
        FileNotFoundError: there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read(co2().to_parquet(Path(folder) / "co2.parquet"))
        SeriesSet(1 series, 2225 rows, channels: co2; times: datetimes (days since 1958-03-29))
    """
    frame, described = read_frame(path, columns.get("id"))
    given = {name: value for name, value in columns.items() if value is not None}
    try:
        return from_pandas(frame, **_overridden(described, given))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_frame(path: str | Path, id: str | None = None) -> tuple[DataFrame, dict[str, Any]]:
    """The table in a file, and the arguments of `from_pandas` that a parquet file carries.

    Args:
        path: as in `read`.
        id: the column of ids, which stay text in a CSV file where a number would lose their leading zeros.

    Raises:
        DataError: the file is truncated or malformed, or its ending is unknown.
        FileNotFoundError: there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frame, columns = read_frame(co2().to_parquet(Path(folder) / "co2.parquet"))
        >>> list(frame.columns), columns["units"]
        (['id', 'time', 'co2'], {'co2': 'ppm'})
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    if path.is_dir() or path.suffix in (".parquet", ".pq"):
        return _read_parquet(path)
    if path.name.endswith((".csv", ".csv.gz")):
        return _read_csv(path, id), {}
    raise DataError(f"{path}: cannot tell the format of the file; name it .csv, .csv.gz or .parquet.")


def columns_of(path: str | Path) -> dict[str, Any]:
    """The arguments of `from_pandas` that a parquet file carries, without reading it; of any other, none.

    Args:
        path: as in `read`; what is wrong with a file is said when it is read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     columns_of(co2().to_parquet(Path(folder) / "co2.parquet"))["units"]
        {'co2': 'ppm'}
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    first = next(iter(sorted(path.glob("*.parquet"))), path) if path.is_dir() else path
    if first.suffix not in (".parquet", ".pq"):
        return {}
    try:
        return _described(pq.read_schema(first).metadata or {}, first)
    except (pa.ArrowException, OSError):
        return {}


def co2() -> SeriesSet:
    """Weekly atmospheric CO2 at Mauna Loa, 1958 to 2001, with its real gaps: 2,225 observations in 2,284 weeks, in ppm.

    Public domain: C. D. Keeling and T. P. Whorf, Atmospheric CO2 records from sites in the SIO air sampling network,
    2004.

    Returns:
        One series on a datetime axis; weeks without an observation are absent.

    Example:
        >>> co2().channels
        (Channel(name='co2', unit='ppm', kind='real'),)
    """
    import pandas as pd

    with importlib.resources.files("ctdyn.data").joinpath("files/co2.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file)
    frame["date"] = pd.to_datetime(frame["date"].astype(str), format="%Y%m%d")
    frame["site"] = "Mauna Loa"
    return from_pandas(frame, id="site", time="date", values=["co2"], units={"co2": "ppm"}, time_unit="day")


def write_csv(frame: DataFrame, path: str | Path) -> Path:
    """Write a frame as CSV, whole or not at all.

    Args:
        frame: the frame; its index is not written.
        path: where to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_csv(co2().to_wide(), Path(folder) / "co2.csv").name
        'co2.csv'
    """
    path = Path(path)
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, compression="gzip" if path.suffix == ".gz" else None)
    return path


def write_parquet(frame: DataFrame, path: str | Path, **columns: Any) -> Path:
    """Write a frame as parquet, whole or not at all, together with what its columns are.

    Args:
        frame: the frame; its index is not written.
        path: where to.
        **columns: the arguments of `from_pandas` with which `read` is to read it.

    Example:
        >>> import pandas as pd, tempfile
        >>> frame = pd.DataFrame({"t": [0.0, 1.0], "hr": [60.0, 61.0]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read(write_parquet(frame, Path(folder) / "hr.parquet", time="t", units={"hr": "1/min"})).channels
        (Channel(name='hr', unit='1/min', kind='real'),)
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    if columns:
        described = json.dumps(columns, sort_keys=True).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: described})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
    return path


def write_set(data: SeriesSet, path: str | Path) -> Path:
    """Write a set as parquet together with what its columns are (see `SeriesSet.to_parquet`).

    Args:
        data: the series.
        path: where to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read(write_set(co2(), Path(folder) / "co2.parquet")).channels
        (Channel(name='co2', unit='ppm', kind='real'),)
    """
    columns: dict[str, Any] = {
        "id": "id",
        "time": "time",
        "values": list(data.channel_names),
        "inputs": list(data.input_names),
        "static": list(data.static_names),
        "labels": list(data.label_names),
        "units": {channel.name: channel.unit for channel in data.channels if channel.unit is not None},
        "kinds": {channel.name: channel.kind for channel in data.channels},
        "time_unit": data.axis.unit,
    }
    if data.channels and len(data) and all(one.noise is not None for one in data):
        columns["noise"] = {name: f"{name}_noise" for name in data.channel_names}
    if any(one.start is not None for one in data):
        columns["start"] = "start"
    return write_parquet(data.to_wide(), path, **columns)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Args:
        path: the file to write.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "note.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     os.listdir(folder)
        ['note.txt']
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _overridden(described: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the file says about the channels holds for the chosen ones only."""
    chosen = given.get("values")
    if chosen is None:
        return {**described, **given}
    names = {chosen} if isinstance(chosen, str) else set(chosen)
    kept = dict(described)
    for key in ("noise", "units", "kinds"):
        if isinstance(kept.get(key), dict):
            kept[key] = {name: value for name, value in kept[key].items() if name in names}
    return {**kept, **given}


def _read_parquet(path: Path) -> tuple[DataFrame, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: the folder holds no .parquet file.")
    tables = []
    for file in files:
        try:
            table = pq.ParquetFile(file).read()
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{file}: not a complete parquet file (it is truncated, or its contents do not fit its schema): "
                f"{_first_line(error)}. Write it again."
            ) from error
        if tables and not table.schema.equals(tables[0].schema):
            raise DataError(
                f"{file}: its schema differs from that of {files[0].name}: {_difference(table, tables[0])}."
            )
        tables.append(table)
    table = pa.concat_tables(tables)
    return table.to_pandas(), _described(table.schema.metadata or {}, files[0])


def _difference(table: Any, first: Any) -> str:
    pairs = {(field.name, str(field.type)) for field in table.schema} ^ {(f.name, str(f.type)) for f in first.schema}
    return "columns " + ", ".join(f"{name} ({kind})" for name, kind in sorted(pairs))


def _described(metadata: dict[bytes, bytes], path: Path) -> dict[str, Any]:
    """What the file says about its columns: data, of which only the arguments of `from_pandas` are believed."""
    import inspect

    if _KEY not in metadata:
        return {}
    try:
        columns = json.loads(metadata[_KEY])
    except ValueError as error:
        raise DataError(f"{path}: its description of the columns is not JSON; name the columns instead.") from error
    known = set(inspect.signature(from_pandas).parameters) - {"df"}
    if not isinstance(columns, dict) or not known.issuperset(columns):
        raise DataError(f"{path}: its description of the columns has unknown entries; name the columns instead.")
    return columns


def _read_csv(path: Path, id: str | None) -> DataFrame:
    import pyarrow as pa
    import pyarrow.csv

    try:
        table = pyarrow.csv.read_csv(path)
    except (pa.ArrowException, OSError, EOFError) as error:
        _find_broken_line(path)
        raise DataError(f"{path}: not a readable CSV file: {_first_line(error)}.") from error
    repeated = [name for name in dict.fromkeys(table.column_names) if table.column_names.count(name) > 1]
    if repeated:
        raise DataError(f"{path}: column {few(repeated)} occurs more than once in the header; rename or drop it.")
    if path.suffix == ".csv":
        _check_last_line(path)
    frame = table.to_pandas()
    if id in table.column_names and pa.types.is_integer(table.schema.field(id).type):
        as_text = pyarrow.csv.ConvertOptions(
            include_columns=[id], column_types={id: pa.string()}, strings_can_be_null=True
        )
        ids = pyarrow.csv.read_csv(path, convert_options=as_text).to_pandas()[id]
        if (ids.dropna() != frame[id].dropna().astype("Int64").astype(str)).any():
            frame[id] = ids
    return frame


def _find_broken_line(path: Path) -> None:
    """Name the line at which the number of fields is not that of the header."""
    if path.suffix != ".csv":
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, None)
        if not header:
            raise DataError(f"{path}: the file is empty; a table with a header line was expected.")
        for row in rows:
            if row and len(row) != len(header):
                raise DataError(
                    f"{path}: line {rows.line_num} has {len(row)} fields, but the header has {len(header)}; the file "
                    "is truncated or malformed there. Repair or remove the line, or write the file again."
                )


def _check_last_line(path: Path) -> None:
    """A file that was cut inside its last field has the right number of fields: only its missing end tells."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    if tail.endswith((b"\n", b"\r")):
        return
    # The first piece may be half a line, or the header.
    *lines, last = [line.rsplit(b",", 1)[-1].strip() for line in tail.splitlines()[1:]] or [b"?"]
    cut = not last or (len(lines) >= 20 and len(last) < min(map(len, lines)))
    where = f"{path}: the last line has no end"
    if cut:
        raise DataError(
            f"{where} and its last field is {'empty' if not last else 'shorter than all others'}; the file is "
            "truncated. Write it again, or end the line if it is complete."
        )
    warnings.warn(f"{where}; if the file is truncated, its last value is wrong.", DataWarning, stacklevel=5)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
