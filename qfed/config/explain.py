"""What pydantic found wrong, as one line a field: where it was set, what came, what was expected, the way out.

    FILE, line 7: training.rounds=0: input should be greater than or equal to 1; see: qfed config schema training

A value that came by `--set` is said to come from there, not from the file. Lines are found by reading the file's
section headers and keys; what that cannot tell (a key inside an inline table) gets the line of what encloses it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel

from qfed.config.quantum import SECRET_KEY

Path = tuple[str, ...]
_KNOWN = "known here: "


def explain(
    model: type[BaseModel], errors: Iterable[Any], origin: str, text: str, overrides: Mapping[Path, str], see: str
) -> str:
    """One line a field. `overrides` are the `--set` items by the path that each set; `see` documents the sections."""
    lines = _lines(text)
    expected: dict[tuple[str, str], list[str]] = {}
    for item in errors:
        path, section = resolve(model, item["loc"])
        if item["type"] == "union_tag_invalid":
            path = (*path, "kind")
        start, wanted, way_out = _explain(path, item, section, see)
        if item["type"] == "extra_forbidden" and way_out.startswith(_KNOWN) and (places := named(model, path[-1])):
            way_out = f"did you mean {' or '.join(map(repr, places))}?"
        # A field that may be one of several things fails once for each of them.
        expected.setdefault((_where(path, origin, lines, overrides) + start, way_out), []).append(wanted)
    return "\n".join(
        "; ".join(filter(None, (start + ", or ".join(wanted), way_out)))
        for (start, way_out), wanted in expected.items()
    )


def named(model: type[BaseModel], name: str) -> list[str]:
    """Where sections have a field of this name, as dotted keys; the shortest first."""
    found: list[str] = []
    for field, info in model.model_fields.items():
        if _is_section(section := info.annotation):
            found += [f"{field}.{inner}" for inner in named(section, name)]
        elif field == name:
            found.append(field)
    return sorted(found, key=lambda key: key.count("."))


def resolve(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[Path, type[BaseModel] | None]:
    """The path as it is written in the file, without pydantic's names of union branches, and the section around it."""
    path: list[str] = []
    section: type[BaseModel] | None = model
    current: Any = model
    for part in loc:
        if isinstance(part, int):
            path.append(str(part))
        elif _is_section(current):
            section = current
            path.append(part)
            field = current.model_fields.get(part)
            current = None if field is None else field.annotation
            choices = _sections(current)
            current = choices[0] if len(choices) == 1 else choices or current
        elif isinstance(current, list):  # sections told apart by their kind: the tag
            current = next((choice for choice in current if _kind_of(choice) == part), None)
            section = current
        elif _holds(current, dict):
            path.append(part)
    return tuple(path), section


def _where(path: Path, origin: str, lines: Mapping[Path, int], overrides: Mapping[Path, str]) -> str:
    direct = [item for key, item in overrides.items() if path[: len(key)] == key]
    if direct:
        return f"--set {_shown(direct[-1])}: "
    # A section as a whole may be wrong because of what the file and the command line say together.
    beside = [item for key, item in overrides.items() if path and key[: len(path)] == path]
    if beside:
        return f"{origin}{' with ' if origin else ''}{' '.join(f'--set {_shown(item)}' for item in beside)}: "
    if not origin:
        return ""
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    return f"{origin}, line {line}: " if line else f"{origin}: "


def _shown(item: str) -> str:
    """What was set, without a value that may be a secret."""
    key, _, _ = item.partition("=")
    return f"{key}=(hidden)" if SECRET_KEY.search(key) else item


def _explain(path: Path, item: Any, section: type[BaseModel] | None, see: str) -> tuple[str, str, str]:
    """What came, what was expected, the way out."""
    field, kind, value = ".".join(path) or "configuration", item["type"], item["input"]
    see = f"see: {see} {path[0] if len(path) > 1 else ''}".rstrip() if see else ""
    if isinstance(value, dict | list | tuple):
        came = f"{field} is {'a table' if isinstance(value, dict) else 'a list'}"
    else:
        came = f"{field}={value!r}"
    match kind:
        case "extra_forbidden":
            known = list(section.model_fields) if section is not None else []
            near = difflib.get_close_matches(path[-1], known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"{_KNOWN}{', '.join(known)}"
            return f"unknown key {field if isinstance(value, dict | list) else came}", "", hint
        case "value_error":
            return f"{field}: ", str(item["ctx"]["error"]), ""
        case "missing":
            return f"{field} is missing", "", see
        case "union_tag_invalid":
            return f"{field}={item['ctx']['tag']!r}: ", f"expected {item['ctx']['expected_tags']}", see
        case _:
            wanted = item["msg"][0].lower() + item["msg"][1:]
            return f"{came}: ", re.sub(r"valid (tuple|dictionary\b.*)", _in_toml, wanted), see


def _in_toml(match: re.Match[str]) -> str:
    return "list" if match[1] == "tuple" else "table"


def _lines(text: str) -> dict[Path, int]:
    """The line that sets each path; entries of [[an.array]] are counted from 0, as pydantic does."""
    lines: dict[Path, int] = {}
    header: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*(\[{1,2})\s*([^\[\]]+?)\s*\]{1,2}\s*(#.*)?$", line):
            header = _within(_parts(match[2]), counts)
            if match[1] == "[[":
                counts[header] = counts.get(header, -1) + 1
                lines.setdefault(header, number)
                header = (*header, str(counts[header]))
            lines.setdefault(header, number)
        elif match := re.match(
            r"\s*((?:[\w\-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w\-]+|\"[^\"]*\"|'[^']*'))*)\s*=", line
        ):
            path = (*header, *_parts(match[1]))
            for n in range(len(header) + 1, len(path) + 1):
                lines.setdefault(path[:n], number)
    return lines


def _within(path: Path, counts: Mapping[Path, int]) -> Path:
    """[a.b] after [[a]] speaks of the last a."""
    for n in range(len(path) - 1, 0, -1):
        if path[:n] in counts:
            return (*path[:n], str(counts[path[:n]]), *path[n:])
    return path


def _parts(key: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.]+", key))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if _is_section(annotation):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _kind_of(section: type[BaseModel]) -> Any:
    return get_args(section.model_fields["kind"].annotation)[0]


def _holds(annotation: Any, kind: type) -> bool:
    return get_origin(annotation) is kind or any(_holds(argument, kind) for argument in get_args(annotation))


def _is_section(model: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(model, type) and issubclass(model, BaseModel)
