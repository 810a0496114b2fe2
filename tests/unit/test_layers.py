"""Imports point down only: every module's imports are read, and each layer knows just those below it."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import perennial

ROOT = Path(perennial.__file__).parent

#: what each part of the package may import of the others; itself always, and nothing that is not here
MAY_KNOW: dict[str, set[str]] = {
    "core": set(),
    "windows": {"core"},
    "drift": {"core"},
    "metrics": {"core"},
    "advice": {"core"},
    "stream": {"core"},
    "ledger": {"core"},
    "learners": {"core"},
    "triggers": {"core", "drift", "metrics"},
    "gate": {"core", "metrics"},
    "strategies": {"core", "windows", "triggers", "drift", "metrics", "gate"},
    "testing": {"core", "learners"},
}
BELOW_ENGINE = set(MAY_KNOW)
MAY_KNOW["engine"] = BELOW_ENGINE - {"testing", "advice"}
MAY_KNOW["replay"] = MAY_KNOW["engine"] | {"engine", "advice"}
MAY_KNOW["production"] = MAY_KNOW["engine"] | {"engine"}
MAY_KNOW["config"] = MAY_KNOW["replay"] | {"replay", "production"}
APPS = {"cli", "server", "client", "__main__"}
EVERYTHING = set(MAY_KNOW) | APPS | {"demo"}
for app in APPS:
    MAY_KNOW[app] = EVERYTHING - {"testing"}

#: frameworks, each with the one place that may import it; "in a function" is no excuse
FRAMEWORKS = {name: f"learners/{name}.py" for name in ("lightgbm", "xgboost", "catboost", "river", "torch")}
#: where pandas, pyarrow and scikit-learn may be imported as a module loads: modules that are loaded on demand
HEAVY = {
    "pyarrow": ("learners/", "stream/", "replay/", "production/", "config/", "cli/", "server/"),
    "pandas": (*FRAMEWORKS.values(), "learners/sklearn.py", "stream/"),
    "sklearn": (*FRAMEWORKS.values(), "learners/sklearn.py"),
    "polars": (),
    "arch": (),
}
#: packages whose import loads numpy at most
LIGHT = (
    "__init__.py", "core/", "windows/", "triggers/", "strategies/", "metrics/", "gate/", "drift/",
    "ledger/__init__.py", "ledger/memory.py", "ledger/records.py", "ledger/errors.py",
)  # fmt: skip
WEB = {"fastapi", "starlette", "uvicorn", "jinja2", "typer", "rich", "orjson", "httpx"}


@dataclass(frozen=True)
class Import:
    """One imported module: by which file, at which line, and whether it is loaded when the file is."""

    file: str
    line: int
    module: str
    at_load: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(path: Path) -> list[Import]:
    """Everything a file imports; imports for type checkers alone are none."""
    file, found = path.relative_to(ROOT).as_posix(), []

    def visit(node: ast.AST, at_load: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                visit(other, at_load)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(file, node.lineno, alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} is a relative import: write it in full"
            assert node.module is not None
            for alias in node.names:
                if alias.name == "__version__":
                    continue  # a number that the face holds, and no part of it
                whole = f"{node.module}.{alias.name}"
                found.append(Import(file, node.lineno, whole if whole in MODULES else node.module, at_load))
        inside = at_load and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text()), True)
    return found


IMPORTS = [one for path in MODULES.values() for one in imports_of(path)]


def part_of(module: str) -> str:
    """The part of the package that a dotted name or a file belongs to; the package's own face is ``perennial``."""
    names = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".").split(".")
    names = names[1:] if names[0] == "perennial" else names
    return names[0] if names and names[0] and names[0] != "__init__" else "perennial"


def test_there_is_something_to_read() -> None:
    """The reader finds imports of every sort, or the tests below prove nothing."""
    assert any(i.module == "perennial.core.times" and i.file == "windows/sliding.py" for i in IMPORTS)
    assert any(i.module == "pyarrow" and i.file == "core/features.py" and not i.at_load for i in IMPORTS)
    assert not any(i.module == "pandas" and i.file == "core/features.py" for i in IMPORTS)
    assert any(i.module == "numpy" and i.at_load for i in IMPORTS)


def test_every_part_has_its_layer() -> None:
    """A new folder or module says where it belongs before it may import anything."""
    assert {part_of(m) for m in MODULES} - {"perennial"} - EVERYTHING == set()


@pytest.mark.parametrize("part", sorted(MAY_KNOW))
def test_a_part_knows_only_what_lies_below_it(part: str) -> None:
    """No import points up or sideways, wherever in a module it stands."""
    wrong = [
        str(i)
        for i in IMPORTS
        if part_of(i.file) == part
        and i.module.split(".")[0] == "perennial"
        and part_of(i.module) not in {*MAY_KNOW[part], part, "perennial"}
    ]
    assert wrong == []


def test_only_apps_use_the_packages_own_face() -> None:
    """Below the apps, names are taken from where they live: the face imports all and would close a circle."""
    wrong = [str(i) for i in IMPORTS if i.module == "perennial" and part_of(i.file) in set(MAY_KNOW) - APPS]
    assert wrong == []


def test_nothing_imports_an_app() -> None:
    """The command line and the server know everything, and nothing knows them."""
    wrong = [str(i) for i in IMPORTS if part_of(i.module) in APPS and part_of(i.file) not in APPS]
    assert wrong == []


def test_each_framework_is_imported_by_its_one_file() -> None:
    """Only `learners/torch.py` imports torch, and so for each."""
    wrong = [str(i) for i in IMPORTS if (top := i.module.split(".")[0]) in FRAMEWORKS and i.file != FRAMEWORKS[top]]
    assert wrong == []


def test_heavy_packages_load_on_demand() -> None:
    """pandas, Arrow and scikit-learn are loaded with a module only where that module is itself loaded on demand."""
    wrong = [
        str(i)
        for i in IMPORTS
        if i.at_load and (top := i.module.split(".")[0]) in HEAVY and not i.file.startswith(HEAVY[top])
    ]
    assert wrong == []


def test_what_a_user_writes_first_loads_numpy_at_most() -> None:
    """Core, windows, triggers and strategies import the standard library and numpy as they load, and no more."""
    allowed = {*sys.stdlib_module_names, "numpy", "perennial"}
    wrong = [
        str(i) for i in IMPORTS if i.at_load and i.file.startswith(LIGHT) and i.module.split(".")[0] not in allowed
    ]
    assert wrong == []


def test_the_web_and_the_terminal_stay_on_top() -> None:
    """No web or terminal package is imported below the engine."""
    below = BELOW_ENGINE | {"engine"}
    wrong = [str(i) for i in IMPORTS if i.module.split(".")[0] in WEB and part_of(i.file) in below]
    assert wrong == []


def test_there_are_no_cycles() -> None:
    """Modules that load each other form no circle."""
    graph = {
        name: {i.module for i in imports_of(path) if i.at_load and i.module in MODULES and i.module != name}
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                walk(other, (*path, name))
            done.add(name)

    for name in graph:
        walk(name, ())
