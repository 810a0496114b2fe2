"""Identity from content: what decides whether two trainings are the same training.

Keys and seeds are digests of *what* is learned from and *what* learns, never of where it is stored, in how
many files it came or which strategy asked. Two strategies, two runs or two machines that ask for the same
training get the same key, so it is done once; and a training's seed follows from its key, so it is repeatable.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

#: bump when the meaning of a key changes: old cache entries are then never mistaken for new ones
IDENTITY_FORMAT = 1


class Unhashable(TypeError):
    """A setting whose content cannot be told (a lambda, an open file): the training is not shared."""


def digest(*parts: str | bytes | memoryview) -> str:
    """A SHA-256 over parts, each preceded by its length so that no two lists of parts collide."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        sha.update(size.to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()


def seed_from(*parts: str) -> int:
    """A seed in [0, 2**31) that depends on every part."""
    return int(digest("seed", *parts)[:8], 16) & 0x7FFF_FFFF


def canonical(value: object) -> str:
    """A text that is equal for equal content and different otherwise.

    Understands plain values, containers, numpy arrays, dates, enums, named functions and classes, and any
    object with scikit-learn's ``get_params``. A function defined in ``__main__`` or a notebook is told by its
    source as well, since its name says too little.

    Raises
    ------
    Unhashable
        For a lambda, a closure or any object whose content cannot be told.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def _plain(value: object) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return {"float": value.hex()}
        case bytes():
            return {"bytes": digest(value)}
        case Enum():
            return {"enum": [type(value).__module__, type(value).__qualname__, value.name]}
        case datetime() | date() | timedelta():
            return {type(value).__name__: str(value)}
        case list():
            return [_plain(item) for item in value]
        case tuple():
            return {"tuple": [_plain(item) for item in value]}
        case set() | frozenset():
            return {"set": sorted(canonical(item) for item in value)}
        case Mapping():
            return {"map": sorted([canonical(key), _plain(item)] for key, item in value.items())}
        case np.generic():
            item = value.item()
            if isinstance(item, np.generic):  # long doubles stay what they are
                return {"numpy": [str(value.dtype), repr(item)]}
            return {"numpy": [str(value.dtype), _plain(item)]}
        case np.ma.MaskedArray():
            return {"masked": [_plain(value.filled()), _plain(np.ma.getmaskarray(value))]}
        case np.ndarray():
            if value.dtype.hasobject:
                return {"array": [_plain(item) for item in value.ravel().tolist()], "shape": list(value.shape)}
            data = np.ascontiguousarray(value)
            return {"array": [str(data.dtype), list(data.shape), digest(data.tobytes())]}
        case np.random.RandomState():
            return {"random": _plain(value.get_state(legacy=False))}
        case np.random.Generator():
            return {"random": _plain(value.bit_generator.state)}
        case partial():
            return {"partial": [_plain(value.func), _plain(value.args), _plain(value.keywords)]}
        case type() | FunctionType():
            return _named(value)
        case MethodType() | BuiltinMethodType() if not isinstance(value.__self__, ModuleType | None):
            return {"method": [_plain(value.__self__), value.__name__]}
    if is_dataclass(value) and not isinstance(value, type):
        settings = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        return {"record": _named(type(value)), "fields": settings}
    if hasattr(value, "get_params"):
        clone = getattr(type(value), "__sklearn_clone__", None)
        if clone is not None and clone.__qualname__ != "BaseEstimator.__sklearn_clone__":
            raise Unhashable(f"{type(value).__qualname__} keeps what it learned when cloned, and no setting tells it")
        return {"object": _named(type(value)), "params": _plain(value.get_params(deep=False))}
    if hasattr(value, "__module__") and hasattr(value, "__qualname__"):  # builtin and ufunc-like callables
        return _named(value)
    raise Unhashable(f"{type(value).__qualname__} has no content that could be hashed")


def _named(value: Any) -> Any:
    module, name = value.__module__, value.__qualname__
    if "<lambda>" in name or "<locals>" in name:
        raise Unhashable(f"{module}.{name} is a lambda or a local definition: give it a name in a module")
    if isinstance(value, FunctionType) and value.__closure__:
        raise Unhashable(f"{module}.{name} is a closure: what it holds cannot be told; use functools.partial")
    if _users_own(module):
        try:
            return {"named": [module, name, digest(_source(module, value))]}
        except (OSError, TypeError) as error:
            raise Unhashable(f"{module}.{name} has no source: move it to a module") from error
    return {"named": [module, name]}


def _source(module: str, value: Any) -> str:
    """What decides how ``value`` behaves: its whole package, since it calls what stands beside it."""
    path = Path(getattr(sys.modules[module], "__file__", None) or "")
    if module == "__main__" or not path.is_file():
        return inspect.getsource(value)
    root = path
    if "." in module:
        top = sys.modules.get(module.partition(".")[0])
        root = Path(getattr(top, "__file__", None) or path).parent
    files = sorted(root.rglob("*.py")) if root.is_dir() else [path]
    return digest(*(part for file in files for part in (file.name, file.read_bytes())))


def users_code() -> str:
    """Digest of the user's own modules that are loaded: what a process that was started earlier may have otherwise."""
    parts = []
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name != "__main__" and path and _users_own(name):
            try:
                status = os.stat(path)
            except OSError:
                continue
            parts.append(f"{name}\0{path}\0{status.st_mtime_ns}\0{status.st_size}")
    return digest(*parts)


def _users_own(module: str) -> bool:
    """Whether a module is edited between runs: neither a built-in nor installed with a version of its own."""
    origin = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__":
        return True
    top = module.partition(".")[0]
    if origin is None or top == "perennial" or top in sys.stdlib_module_names:
        return False
    return not {"site-packages", "dist-packages"} & set(Path(origin).parts)
