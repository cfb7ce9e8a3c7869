"""Programs from JSON: every field is of its type and known, and errors say which one is not, at which rank, channel and step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .. import __version__
from ..errors import ScheduleError
from ..topology import Topology
from .program import SCHEMA, After, Channel, Connection, Operand, Program, Step

#: Fields whose values are lists of numbers, text, and true or false; all others are numbers.
_LISTS = frozenset({"wait", "signal", "group", "over"})
_TEXTS = frozenset({"buffer", "region", "op", "protocol", "transport", "algorithm", "collective"})
_FLAGS = frozenset({"prescaled", "postscaled", "in_place"})
_TOP = frozenset(
    {"schema", "algorithm", "collective", "root", "nshards", "in_place", "weights", "chunk_bytes", "connections", "ranks", "hash", "topology", "fingerprint", "generator"}
)
_T = TypeVar("_T")


def read_program(text: str) -> Program:
    """The program that :meth:`Program.to_json` wrote.

    Raises
    ------
    ScheduleError
        Where the text is no JSON, no program, of another schema, or malformed, or its hash is not that of its content.
    TopologyError
        Where its topology is none.
    """
    body = _body(text)
    program = Program(
        algorithm=_value("algorithm", body["algorithm"]),
        collective=_value("collective", body["collective"]),
        root=None if body["root"] is None else _value("root", body["root"]),
        topology=Topology.from_json(json.dumps(body["topology"])),
        nshards=_value("nshards", body["nshards"]),
        weights=_numbers("weights", body["weights"]),
        in_place=_value("in_place", body["in_place"]),
        chunk_bytes=_value("chunk_bytes", body["chunk_bytes"]),
        connections=_each("connection c{}", _list("connections", body["connections"]), _connection),
        ranks=_each("rank {}", _list("ranks", body["ranks"]), _channels),
    )
    if program.topology.fingerprint != body.get("fingerprint", program.topology.fingerprint):
        raise _malformed(f"its topology has fingerprint {program.topology.fingerprint}, the file says {body['fingerprint']}")
    if program.hash != body["hash"]:
        raise _malformed(f"its hash says {body['hash']}, its content hashes to {program.hash}: it was changed after it was written")
    return program


def _body(text: str) -> dict[str, Any]:
    """The fields of a program of this schema."""
    try:
        body = json.loads(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        said = f"{error.msg.removesuffix(' starting at')} (line {error.lineno}, column {error.colno}){'; the file seems to be cut off' if cut else ''}"
        raise _malformed(f"not JSON: {said if text.strip() else 'it is empty'}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise _malformed(f"not JSON that can be read: {error}") from None
    if not isinstance(body, dict) or "schema" not in body:
        raise _malformed("there is no schema: this is no program")
    if body["schema"] != SCHEMA:
        maker = f", made by {body['generator']}" if isinstance(body.get("generator"), str) and body["generator"].isprintable() else ""
        raise _malformed(f"expected schema {SCHEMA}, got {body['schema']!r:.40}{maker}; blinkcoll {__version__} does not read it: lower the plan anew with this version")
    _check_names(body, _TOP, required=_TOP - {"fingerprint", "generator"})
    return body


def _malformed(what: str) -> ScheduleError:
    return ScheduleError(f"program JSON: {what}")


def _check_names(body: dict[str, Any], known: Iterable[str], required: Iterable[str]) -> None:
    missing, unknown = sorted(set(required) - set(body)), sorted(set(body) - set(known))
    if missing or unknown:
        raise _malformed(f"missing field {missing[0]!r}" if missing else f"unknown field {unknown[0]!r:.40}")


def _each(where: str, items: list[Any], read: Callable[[Any], _T]) -> tuple[_T, ...]:
    """All items, read; an error says which one it is of."""
    made = []
    for i, item in enumerate(items):
        try:
            made.append(read(item))
        except ScheduleError as error:
            what = str(error).removeprefix("program JSON: ")
            inner = what.startswith(("channel ", "step "))
            raise _malformed(f"{where.format(i)}{', ' if inner else ': '}{what}") from None
    return tuple(made)


def _channels(body: Any) -> tuple[Channel, ...]:
    return _each("channel {}", _list("channels", body), lambda steps: Channel(_each("step {}", _list("steps", steps), _step)))


def _step(body: Any) -> Step:
    fields = _fields(body, Step, required=("op", "share"), nested=("srcs", "dsts", "after"))
    for name in ("srcs", "dsts"):
        fields[name] = tuple(Operand(**_fields(o, Operand, required=("buffer",))) for o in _list(name, body.get(name, [])))
    fields["after"] = tuple(After(**_fields(a, After, required=("channel", "step"))) for a in _list("after", body.get("after", [])))
    return Step(**fields)


def _connection(body: Any) -> Connection:
    fields = _fields(body, Connection, required=("src", "dst", "path"), nested=("path",))
    path = _list("path", body["path"])
    return Connection(**fields, path=tuple(v if isinstance(v, str) else _number("path", v) for v in path))


def _fields(body: Any, made: type, required: Iterable[str], nested: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of an object that are no objects themselves, each of its type."""
    if not isinstance(body, dict):
        raise _malformed(f"malformed: expected the fields of a {made.__name__.lower()}, got {body!r:.40}")
    _check_names(body, made.__dataclass_fields__, required)  # type: ignore[attr-defined]
    return {name: _value(name, value) for name, value in body.items() if name not in nested}


def _value(name: str, value: Any) -> Any:
    if name in _LISTS:
        return _numbers(name, value)
    if name in _FLAGS and not isinstance(value, bool):
        raise _malformed(f"malformed {name}: {value!r:.40}, expected true or false")
    if name in _TEXTS and not (isinstance(value, str) and value.isprintable()):
        raise _malformed(f"malformed {name}: {value!r:.40}, expected text")
    return value if name in _FLAGS or name in _TEXTS else _number(name, value)


def _number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _malformed(f"malformed {name}: {value!r:.40}, expected a whole number")
    return value


def _numbers(name: str, values: Any) -> tuple[int, ...]:
    return tuple(_number(name, value) for value in _list(name, values))


def _list(name: str, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise _malformed(f"malformed {name}: {values!r:.40}, expected a list")
    return values
