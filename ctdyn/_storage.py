"""Weights and settings on disk: safetensors beside strict JSON, written so that a crash leaves the old or the new.

A folder holds one JSON document and one weight file. The document names the weight file and its sha256 and carries a
checksum of itself, so that damage is noticed. Nothing is pickled, and nothing that is read is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ._checks import CheckpointWriteError, DataError, VersionError


__all__ = ["check_writable", "decode_tree", "encode_tree", "read_folder", "write_file", "write_folder"]

VERSION = 1
# Two names, used in turn: the file that the present document points to is never overwritten.
WEIGHT_FILES = ("weights.safetensors", "weights-b.safetensors")
_MAX_DEPTH = 64
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode_tree(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split nested plain data into a JSON document and named tensors; `decode_tree` gives back exactly what went in.

    Args:
        tree: dictionaries with keys of plain data, lists, tuples, tensors, numbers, strings and None.

    Returns:
        The document, and the tensors that it refers to.

    Raises:
        TypeError: a part is of another kind.

    Example:
        >>> document, tensors = encode_tree({3: (1.5, None)})
        >>> decode_tree(document, tensors)
        {3: (1.5, None)}
    """
    tensors: dict[str, Tensor] = {}

    def encode(value: Any, path: str) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        if isinstance(value, Tensor):
            name = f"{len(tensors)}{path}"
            tensors[name] = value
            return {"tensor": name}
        if isinstance(value, Mapping):
            return {"dict": [[encode(k, f"{path}/key"), encode(v, f"{path}/{k}")] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            items = [encode(item, f"{path}/{i}") for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        raise TypeError(
            f"{type(value).__name__} at {path or 'the root'} cannot be stored; a checkpoint holds tensors and plain "
            "data only."
        )

    return encode(tree, ""), tensors


def decode_tree(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put together again what `encode_tree` took apart.

    Args:
        document: plain JSON data.
        tensors: the tensors that it refers to, by name.

    Raises:
        DataError: the document is not one that `encode_tree` writes.
    """
    if isinstance(document, list):
        return [decode_tree(item, tensors) for item in document]
    if not isinstance(document, dict):
        return document
    if len(document) != 1:
        raise DataError(f"a stored tree holds an entry with the keys {sorted(document)}; the file is damaged.")
    ((kind, content),) = document.items()
    if kind == "tuple" and isinstance(content, list):
        return tuple(decode_tree(item, tensors) for item in content)
    if kind == "dict" and isinstance(content, list):
        return {decode_tree(key, tensors): decode_tree(value, tensors) for key, value in content}
    if kind == "tensor" and content in tensors:
        return tensors[content]
    if kind == "float" and content in _NON_FINITE:
        return _NON_FINITE[content]
    raise DataError(f"a stored tree holds the unknown entry {kind!r}; the file is damaged.")


def check_writable(folder: Path) -> None:
    """Make `folder`, and find out now rather than after hours of training whether it can be written.

    Args:
        folder: where something is to be written later.

    Raises:
        CheckpointWriteError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CheckpointWriteError(
            f"{folder} is not writable ({error}); choose another folder or change its permissions."
        ) from error


def write_file(path: Path, content: bytes) -> None:
    """Replace a file at once: whoever reads it sees the old content or the new one, after a power cut too.

    Args:
        path: the file.
        content: its new content.

    Raises:
        CheckpointWriteError: it could not be written; the old file is untouched.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a run is to be as readable as any other file of its owner.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise CheckpointWriteError(
            f"{path} could not be written ({error}); what stood there before is untouched. Free some space or choose "
            "another folder."
        ) from error


def write_folder(folder: Path, name: str, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a document and the weights that belong to it into a folder that exists.

    The weights come first, under a name that the present document does not use; replacing the document is what makes
    them count. A crash at any moment leaves a pair that loads.

    Args:
        folder: where to write.
        name: the file name of the document.
        document: plain JSON data; `kind` says what it describes.
        tensors: the weights, by name.

    Raises:
        CheckpointWriteError: it could not be written; the pair that stood there before is untouched.
    """
    used = _named_weights(folder / name)
    file = WEIGHT_FILES[1] if used == WEIGHT_FILES[0] else WEIGHT_FILES[0]
    # safetensors refuses tensors that share memory (tied weights); each is written for itself.
    content = safetensors.torch.save({key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()})
    weights = {"file": file, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    full = {"version": VERSION, **document, "weights": weights}
    full["checksum"] = _checksum(full)
    write_file(folder / file, content)
    write_file(folder / name, (json.dumps(full, allow_nan=False, indent=1, ensure_ascii=False) + "\n").encode())
    if used is not None:
        (folder / used).unlink(missing_ok=True)


def read_folder(
    folder: Path, name: str, kind: str, *, max_bytes: int = 1 << 20
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_folder` wrote, trusting nothing.

    Args:
        folder: where it was written.
        name: the file name of the document.
        kind: what the document must describe.
        max_bytes: how large the document may be.

    Returns:
        The document and the tensors.

    Raises:
        FileNotFoundError: there is no such document.
        VersionError: a newer ctdyn wrote it.
        DataError: it is no such document, or it or its weights are damaged.
    """
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {name}: it is not a saved {kind}.")
    document = _parse(path, max_bytes)
    if document.get("kind") != kind:
        raise DataError(f"{path} describes {document.get('kind')!r}; expected a saved {kind}.")
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise VersionError(
            f"{path} has format version {version!r}; this ctdyn reads up to version {VERSION}. Upgrade ctdyn."
        )
    checksum = document.pop("checksum", None)
    if checksum != _checksum(document):
        raise DataError(f"{path} is damaged or was edited: its checksum does not match. Restore it from a copy.")
    return document, _read_weights(folder, document.get("weights"))


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut (a no-op where folders cannot be opened)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_weights(folder: Path, weights: Any) -> dict[str, Tensor]:
    if not isinstance(weights, dict) or weights.get("file") not in WEIGHT_FILES:
        raise DataError(f"{folder} names no weight file that ctdyn writes ({', '.join(WEIGHT_FILES)}).")
    path = folder / weights["file"]
    if not path.is_file():
        raise DataError(f"{path} is missing; restore it from a copy.")
    # The size is compared first, so that a swapped file of many gigabytes is never read.
    size = path.stat().st_size
    if size != weights.get("bytes"):
        raise DataError(f"{path} has {size} bytes, expected {weights.get('bytes')}: it is truncated or was replaced.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != weights.get("sha256"):
        raise DataError(f"{path} is damaged: its sha256 does not match. Restore it from a copy.")
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not a safetensors file ({error}).") from error


def _parse(path: Path, max_bytes: int) -> dict[str, Any]:
    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(f"{path} has {size} bytes; at most {max_bytes} are read.")
    try:
        document = json.loads(
            path.read_bytes().decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not strict JSON ({error}).") from error
    if not isinstance(document, dict) or _depth(document) > _MAX_DEPTH:
        raise DataError(f"{path} is not an object of at most {_MAX_DEPTH} levels.")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("duplicate keys")
    return dict(pairs)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def _checksum(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _named_weights(path: Path) -> str | None:
    """The weight file that the present document, if any, points to; None too where that document cannot be read."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    weights = document.get("weights") if isinstance(document, dict) else None
    name = weights.get("file") if isinstance(weights, dict) else None
    return name if name in WEIGHT_FILES else None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
