"""What a saved model looks like, and the digest of what it has learned.

A saved model is a short header, readable by anybody, and a payload that only its learner understands::

    PRNL | length of header (4 bytes) | header: JSON | payload

The header names the format, the kind of learner, the codec of the payload, the library versions and the payload's
SHA-256, which tells damage and not intent. What may be loaded is for :class:`~perennial.core.protocols.Trust` to say:
a payload is read only after all of the header has been checked against it, and the codec that a learner then uses is
one that it asked for itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Literal, cast

import numpy as np

from perennial.core.errors import FormatError
from perennial.core.protocols import LOCAL, Trust

FORMAT = 2  #: 2 names the codec
_OLDEST = 2
_MAGIC = b"PRNL"
_TIMED = ("cv_results_", "refit_time_")  # a search keeps its own timings among what it found

#: how a payload is written: a framework's own format, or JSON and raw numbers; objects by name; or a pickle
Codec = Literal["native", "skops", "pickle"]


def pack(kind: str, payload: bytes, versions: Mapping[str, str], codec: Codec) -> bytes:
    """A saved model: ``payload`` behind a header that says what can read it."""
    header = json.dumps(
        {
            "format": FORMAT,
            "kind": kind,
            "codec": codec,
            "versions": dict(sorted(versions.items())),
            "sha256": hashlib.sha256(payload).hexdigest(),
        },
        separators=(",", ":"),
    ).encode()
    return _MAGIC + len(header).to_bytes(4, "little") + header + payload


def unpack(
    kind: str, blob: bytes, versions: Mapping[str, str], trust: Trust = LOCAL, codecs: Sequence[Codec] = ("native",)
) -> tuple[Codec, bytes]:
    """Codec and payload of a saved model, once its header says that this learner and these libraries can read it.

    Parameters
    ----------
    kind : str
        What :func:`pack` was given.
    versions : mapping
        Installed versions; a saved one must agree in its first two numbers, as pickles promise no more.
    trust : Trust
        What may be loaded. A pickle needs a local one, or one that allows pickles and holds the saved model's digest.
    codecs : sequence of str
        Those that the learner can read.

    Raises
    ------
    FormatError
        If it is no saved model, is damaged, was saved by another kind of learner, by a newer release or with
        another version of a library, or is not to be trusted.
    """
    header, payload = _split(blob)
    if not isinstance(number := header.get("format"), int) or number > FORMAT:
        raise FormatError(f"saved in format {number}; this release reads {_OLDEST}..{FORMAT}: upgrade perennial")
    if number < _OLDEST:
        raise FormatError(f"saved in format {number}; this release reads {_OLDEST}..{FORMAT}: train anew")
    if header.get("kind") != kind:
        raise FormatError(f"saved by a {header.get('kind')!r} learner, and this is {kind!r}: load it with its own")
    if hashlib.sha256(payload).hexdigest() != header.get("sha256"):
        raise FormatError("the saved model is damaged (its checksum differs): restore the file or train anew")
    if (codec := header.get("codec")) not in codecs:
        raise FormatError(f"its payload is {codec!r}, and a {kind!r} learner reads {', '.join(codecs)}: train anew")
    if trust.digest is not None and sha256(blob) != trust.digest:
        raise FormatError(
            f"its SHA-256 is {sha256(blob)}, and {trust.digest} was recorded when it was saved: restore the file"
        )
    if codec == "pickle" and not trust.local:
        _refuse_pickle(kind, trust)
    saved: dict[str, str] = header.get("versions", {})
    for library, version in versions.items():
        if _series(saved.get(library, "")) != _series(version):
            raise FormatError(
                f"saved with {library} {saved.get(library, 'unknown')}, and {version} is installed: "
                "install the former one or train anew"
            )
    return cast(Codec, codec), payload


def _refuse_pickle(kind: str, trust: Trust) -> None:
    if not trust.pickle:
        raise FormatError(
            f"the saved {kind!r} model is a pickle, which runs code as it is loaded: allow it with "
            "`serialisation: {pickle: true}` if you saved it yourself"
        )
    if trust.digest is None:
        raise FormatError(
            f"the saved {kind!r} model is a pickle, and no digest of it was recorded: load it through its ledger"
        )


def codec_of(blob: bytes) -> Codec | None:
    """How a saved model's payload is written, as its header says; None if it has no header of ours."""
    if not blob.startswith(_MAGIC):
        return None
    codec = _split(blob)[0].get("codec")
    return cast(Codec, codec) if codec in ("native", "skops", "pickle") else None


def sha256(blob: bytes) -> str:
    """The digest to record when a model is saved, and to give as ``Trust.digest`` when it is loaded."""
    return hashlib.sha256(blob).hexdigest()


def within(trust: Trust, part: bytes) -> Trust:
    """The trust for a saved model inside another that was checked: its digest is vouched for by the whole."""
    return trust if trust.digest is None else replace(trust, digest=sha256(part))


def join(header: Mapping[str, object], payloads: Sequence[bytes]) -> bytes:
    """Plain values and several payloads as one."""
    head = json.dumps({**header, "sizes": [len(p) for p in payloads]}, separators=(",", ":")).encode()
    return b"".join([len(head).to_bytes(4, "little"), head, *payloads])


def part(content: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """What :func:`join` was given; raises ``FormatError`` if it is no such thing."""
    try:
        at = 4 + int.from_bytes(content[:4], "little")
        header: dict[str, Any] = json.loads(content[4:at])
        payloads = []
        for size in header["sizes"]:
            payloads.append(content[at : at + size])
            at += size
        return header, payloads
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError("the saved model's content is damaged: restore the file or train anew") from error


def _split(blob: bytes) -> tuple[dict[str, Any], bytes]:
    start = len(_MAGIC) + 4
    size = int.from_bytes(blob[len(_MAGIC) : start], "little")
    if blob[: len(_MAGIC)] != _MAGIC or len(blob) < start + size:
        raise FormatError("this is no saved model, or only the start of one: restore the file or train anew")
    try:
        header = json.loads(blob[start : start + size])
    except ValueError as error:
        raise FormatError("the saved model's header is damaged: restore the file or train anew") from error
    if not isinstance(header, dict):
        raise FormatError("the saved model's header is damaged: restore the file or train anew")
    return header, blob[start + size :]


def _series(version: str) -> list[str]:
    return version.split(".")[:2]


def state_digest(*state: object) -> str:
    """Digest of content: equal for equal learned state, whichever way the objects came to hold it.

    Walks containers, arrays and the attributes of objects; never looks at pickle bytes, which differ between equal
    models (shared references, memory order, padding).
    """
    sha = hashlib.sha256()
    for piece in _content(list(state), set()):
        sha.update(len(piece).to_bytes(8, "little"))
        sha.update(piece)
    return sha.hexdigest()


def state_size(*state: object) -> int:
    """Bytes of the content that :func:`state_digest` walks: equal for equal learned state."""
    return sum(map(len, _content(list(state), set())))


def _content(value: object, above: set[int]) -> Iterator[bytes]:
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes():
            yield type(value).__name__.encode()
            yield value if isinstance(value, bytes) else repr(value).encode()
            return
        case np.generic():
            yield from _array(np.asarray(value), above)
            return
        case np.dtype():
            yield str(value).encode()
            return
        case type() | FunctionType() | BuiltinFunctionType():
            yield f"{value.__module__}.{value.__qualname__}".encode()
            return
    if id(value) in above:  # a cycle; sharing alone is no content, since a loaded model shares less
        yield b"cycle"
        return
    yield from _composite(value, above | {id(value)})


def _composite(value: object, above: set[int]) -> Iterator[bytes]:
    match value:
        case np.ndarray():
            yield from _array(value, above)
        case np.random.RandomState():
            yield from _content(value.get_state(legacy=False), above)
        case np.random.Generator():
            yield from _content(value.bit_generator.state, above)
        case MethodType():
            yield value.__name__.encode()
            yield from _content(value.__self__, above)
        case partial():  # as pickle rebuilds it, it may or may not have an empty namespace
            yield from _content([value.func, value.args, value.keywords], above)
        case list() | tuple():
            yield f"{type(value).__name__}{len(value)}".encode()
            for item in value:
                yield from _content(item, above)
        case set() | frozenset():
            yield b"set"
            yield from sorted(state_digest(item).encode() for item in value)
        case Mapping():
            yield f"map{len(value)}".encode()
            for key, item in sorted(value.items(), key=lambda pair: repr(pair[0])):
                yield from _content(key, above)
                yield from _content(item, above)
        case _:
            yield from _attributes(value, above)


def _array(value: np.ndarray[Any, Any], above: set[int]) -> Iterator[bytes]:
    yield f"{value.dtype}{value.shape}".encode()
    if value.dtype.names:  # field by field: the padding between them is whatever memory held
        for name in value.dtype.names:
            yield from _array(value[name], above)
    elif value.dtype.hasobject:
        for item in value.ravel().tolist():
            yield from _content(item, above)
    else:
        yield np.ascontiguousarray(value).tobytes()


def _attributes(value: object, above: set[int]) -> Iterator[bytes]:
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if kind.__module__.partition(".")[0] == "pandas" and hasattr(value, "to_numpy"):
        yield from _content(value.to_numpy(), above)  # its own attributes hold caches
    elif kind.__module__.partition(".")[0] == "pyarrow" and hasattr(value, "to_pydict"):
        table: Any = value
        yield from _content([str(table.schema), table.to_pydict()], above)  # its buffers may hold more than its rows
    elif hasattr(value, "get_arrays") and hasattr(value, "get_tree_stats"):
        yield from _content(list(value.get_arrays()), above)  # a neighbour tree also counts how often it was asked
    elif kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__:
        held = value.__getstate__()
        if isinstance(held, dict):
            held = {name: item for name, item in held.items() if name not in _TIMED}
        yield from _content(held, above)
    else:  # compiled objects say what they hold by how they would be rebuilt
        rebuilt = value.__reduce_ex__(4)
        if isinstance(rebuilt, str):
            yield rebuilt.encode()
            return
        for part in rebuilt[1:]:
            yield from _content(list(part) if isinstance(part, Iterator) else part, above)
