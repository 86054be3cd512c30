"""The habits of the house, as far as a machine can keep them."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from importlinter import cli as importlinter_cli

import ctdyn


ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "ctdyn").rglob("*.py"))
HEAVY = ("lightning", "pytorch_lightning", "pandas", "matplotlib", "pyarrow", "scoringrules")
MAX_FILE, MAX_FUNCTION, MAX_ARGUMENTS = 500, 60, 8

# Where a user's many options meet the library. All but the first few arguments of these are keyword-only.
ENTRY_POINTS = {
    "ctdyn/compare/solvers.py compare_solvers",
    "ctdyn/data/arrays.py from_padded",
    "ctdyn/data/arrays.py from_ragged",
    "ctdyn/data/frames.py from_pandas",
    "ctdyn/integrate/solve.py solve",
    "ctdyn/models/latent_ode.py __init__",
    "ctdyn/models/latent_sde.py __init__",
    "ctdyn/models/ls4.py __init__",
    "ctdyn/train/_loop.py fit",
}

KERNELS = {"_elementary", "_kalman_kernels", "_kernels", "_triton"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def public_modules() -> Iterator[types.ModuleType]:
    yield ctdyn
    for info in pkgutil.walk_packages(ctdyn.__path__, "ctdyn."):
        if not any(part.startswith("_") for part in info.name.split(".")):
            yield importlib.import_module(info.name)


@cache
def exports() -> dict[str, object]:
    """Every class and function in the index of a package (or in a module at the top), under the name of its home."""
    found = {}
    for module in public_modules():
        is_index = module.__name__.count(".") == 1 or "__path__" in vars(module)
        for name in module.__all__ if is_index else ():
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return function.body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def test_imports_keep_their_contracts(capsys: pytest.CaptureFixture[str]) -> None:
    failed = importlinter_cli.lint_imports(config_filename=str(ROOT / "setup.cfg"), no_cache=True)
    assert not failed, capsys.readouterr().out


def test_import_costs_what_torch_costs() -> None:
    code = (
        "import sys, time\n"
        "start = time.perf_counter()\n"
        "import torch\n"
        "middle = time.perf_counter()\n"
        "import ctdyn\n"
        "end = time.perf_counter()\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print((end - middle) / (middle - start), *loaded)\n"
    )
    # The best of three: a busy machine makes a run slower, never faster.
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    ratios = []
    for run in runs:
        ratio, *loaded = run.stdout.split()
        assert not loaded, f"import ctdyn also imports {loaded}"
        ratios.append(float(ratio))
    assert min(ratios) < 0.2, f"import ctdyn costs {min(ratios):.0%} on top of torch"


@pytest.mark.parametrize(
    ("name", "waiting"),
    [
        *(
            (name, {"lightning", "pandas", "matplotlib", "scoringrules"})
            for name in ("data", "solve", "fields", "models")
        ),
        ("Forecaster", {"lightning", "matplotlib"}),
        ("compare", {"lightning", "matplotlib"}),
    ],
)
def test_heavy_libraries_wait_until_they_are_needed(name: str, waiting: set[str]) -> None:
    code = f"import sys, ctdyn\nctdyn.{name}\nprint(*[m for m in {sorted(waiting)!r} if m in sys.modules])\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not run.stdout.split(), f"ctdyn.{name} imports {run.stdout.split()} before anything asks for it"


def test_a_function_is_not_hidden_by_its_module() -> None:
    importlib.import_module("ctdyn.compare")
    assert inspect.isfunction(ctdyn.compare)


def test_every_module_is_reachable_from_the_top() -> None:
    modules = {info.name for info in pkgutil.iter_modules(ctdyn.__path__) if not info.name.startswith("_")}
    assert modules - {"cli"} <= set(ctdyn.__all__), "a public module is missing from ctdyn.__all__"


@pytest.mark.parametrize("module", list(public_modules()), ids=lambda module: module.__name__)
def test_all_is_honest(module: types.ModuleType) -> None:
    assert module.__doc__, f"{module.__name__} has no docstring"
    names = module.__all__
    assert len(names) == len(set(names)), "a name is listed twice"
    missing = [name for name in names if getattr(module, name, None) is None]
    assert not missing, f"{missing} are listed and do not exist"
    defined = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]
    assert set(defined) <= set(names), f"{sorted(set(defined) - set(names))} look public and are not in __all__"


def test_every_export_is_documented() -> None:
    bare = [name for name, value in exports().items() if not (value.__doc__ or "").strip()]
    assert not bare, f"no docstring: {bare}"


def test_every_export_has_an_example() -> None:
    # An exception is raised for you and a protocol is only a type: neither is called.
    uncalled = (BaseException, typing.Protocol)
    silent = [
        name
        for name, value in exports().items()
        if ">>>" not in (value.__doc__ or "") and not set(uncalled) & set(getattr(value, "__mro__", ()))
    ]
    assert not silent, f"no Example in the docstring: {silent}"


def test_every_export_is_annotated() -> None:
    untyped = []
    for name, value in exports().items():
        function = value.__init__ if inspect.isclass(value) else value
        if not inspect.isfunction(function) or not function.__module__.startswith("ctdyn"):
            continue
        parameters = list(inspect.signature(function).parameters.values())
        parameters = parameters[1:] if inspect.isclass(value) else parameters
        untyped += [f"{name}({p.name})" for p in parameters if p.annotation is inspect.Parameter.empty]
    assert not untyped, f"no annotation: {untyped}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_calls_that_the_house_does_not_make(path: Path) -> None:
    allowed = {"print"} if path.parent.name == "cli" else set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            forbidden = {"print", "hasattr", "exit", "eval", "exec"} - allowed
            assert node.func.id not in forbidden, f"{relative(path)}:{node.lineno} calls {node.func.id}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{relative(path)}:{node.lineno} has a bare except"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
            assert not {"pickle", "shelve", "dill"} & set(names), f"{relative(path)}:{node.lineno} imports a pickler"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_stay_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE, f"{relative(path)} has {lines} lines"
    for function in functions(path):
        name, line = f"{relative(path)} {function.name}", f"{relative(path)}:{function.lineno} {function.name}"
        assert body_lines(function) <= MAX_FUNCTION, f"{line} has {body_lines(function)} lines"
        given = function.args
        positional = [a.arg for a in given.posonlyargs + given.args if a.arg not in ("self", "cls")]
        count = len(positional) + (0 if name in ENTRY_POINTS else len(given.kwonlyargs))
        # What is compiled takes bare arrays, one by one.
        assert count <= MAX_ARGUMENTS or path.stem in KERNELS, f"{line} takes {count} arguments"


def test_every_named_model_is_in_the_table() -> None:
    models = ctdyn.models
    named = [
        name
        for name in models.__all__
        if inspect.isclass(getattr(models, name))
        and issubclass(getattr(models, name), models.Model)
        and not inspect.isabstract(getattr(models, name))
    ]
    assert named
    missing = [name for name in named if name not in (models.__doc__ or "")]
    assert not missing, f"{missing} are not in the table of ctdyn.models"


def test_the_table_of_layers_names_every_module() -> None:
    written = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    rows = written.split("layers =")[1].split("[importlinter")[0]
    listed = {name.strip() for row in rows.splitlines() for name in row.split("|") if name.strip()}
    modules = {info.name for info in pkgutil.iter_modules(ctdyn.__path__)}
    assert listed == modules
