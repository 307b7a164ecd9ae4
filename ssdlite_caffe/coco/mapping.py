"""Class mappings: the classes that a remapped model has, and the class of the original model that each comes from.

A mapping file has one class per line, in the order of the new class ids; background is id 0 and is not written:

    # comment
    aeroplane: airplane
    sofa: [couch, settee]
    "a: b": ["c, d"]

A list gives alternatives: the first class that the model has is taken; nothing is summed or averaged. A name with any
of : , [ ] # " in it is written in double quotes, as in JSON. A JSON object with the same content, {"NAME": "source"} or
{"NAME": ["source", ...]}, is read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from ssdlite_caffe.coco.label_map import LabelMap, check_name, numbered, read_text
from ssdlite_caffe.coco.no_class import is_background, is_placeholder
from ssdlite_caffe.errors import LabelMapError

BUILTIN_MAPPINGS = ("coco2voc",)

_NAME = r"""(?:"(?:[^"\\]|\\.)*"|[^\s:,\[\]\#"](?:[^:,\[\]\#"]*[^\s:,\[\]\#"])?)"""
_LINE = re.compile(
    rf"\s*(?P<target>{_NAME})\s*:\s*(?:(?P<one>{_NAME})|\[\s*(?P<many>{_NAME}(?:\s*,\s*{_NAME})*)\s*\])\s*(?:\#.*)?"
)
_BLANK = re.compile(r"\s*(?:#.*)?")


@dataclass(frozen=True)
class Rule:
    """One class of the new model, and the names that it may have in the original model, the first one preferred."""

    target: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class ClassMapping:
    """The classes of the new model in order, without background, which keeps id 0.

    Raises:
        LabelMapError: there is no class, a class is background, is given twice or has no source, or a source is given
            twice in one list.
    """

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        if not self.rules:
            raise LabelMapError("the mapping has no classes")
        seen: set[str] = set()
        for rule in self.rules:
            _check_rule(rule, seen)
            seen.add(rule.target)

    def target(self) -> LabelMap:
        """The label map of the new model."""
        return LabelMap.of_names(rule.target for rule in self.rules)

    def rows(self, source: LabelMap) -> tuple[int, ...]:
        """For each new class id, background first, the class id in the original model.

        Raises:
            LabelMapError: the model lacks a class, or two classes have the same source; all are listed.
        """
        rows: list[int | None] = [0]
        lacking, clashes = [], []
        for rule in self.rules:
            row = next((row for row in map(source.find, rule.sources) if row is not None), None)
            if row is None:
                lacking.append(_not_found(rule, source))
            elif row in rows:
                earlier = "background" if row == 0 else repr(self.rules[rows.index(row) - 1].target)
                clashes.append(f"{rule.target!r} takes class id {row}, which {earlier} has taken already")
            rows.append(row)
        if lacking and source == numbered(len(source)):
            raise LabelMapError(
                f"the model's {len(source)} classes have no names (only class_1, class_2, ...), but the mapping asks "
                f"for {lacking[0]}; convert the model again with its label map"
            )
        problems = [f"the model lacks {', '.join(lacking)}"] if lacking else []
        if problems := [*problems, *clashes]:
            raise LabelMapError(f"the mapping does not fit the model's {len(source)} classes: {'; '.join(problems)}")
        return tuple(row for row in rows if row is not None)


@cache
def builtin_mapping(name: str) -> ClassMapping:
    """The built-in mapping with this name.

    Raises:
        LabelMapError: no built-in mapping has this name.
    """
    if name not in BUILTIN_MAPPINGS:
        raise LabelMapError(f"there is no built-in mapping {name!r}; built in are {', '.join(BUILTIN_MAPPINGS)}")
    file = resources.files(__package__) / "mappings" / f"{name}.yaml"
    return parse_mapping(file.read_text("utf-8"), file.name)


def load_mapping(name_or_path: str | Path) -> ClassMapping:
    """A built-in mapping by its name, or one read from a file.

    Raises:
        LabelMapError: the file cannot be read, has a syntax error or contradicts itself.
    """
    if str(name_or_path) in BUILTIN_MAPPINGS:
        return builtin_mapping(str(name_or_path))
    path = Path(name_or_path)
    if path.parent == Path() and not path.suffix and not path.exists():
        raise LabelMapError(f"{path} is neither a file nor a built-in mapping ({', '.join(BUILTIN_MAPPINGS)})")
    return parse_mapping(read_text(path), str(path))


def parse_mapping(text: str, name: str) -> ClassMapping:
    """Read a mapping in either form; a text that starts with a brace is JSON.

    Args:
        text: the file's text.
        name: the file's name for error messages.

    Raises:
        LabelMapError: the text is not a mapping, or contradicts itself; the error has `name` and, but for the content
            of a JSON file, the line.
    """
    rules = _json_rules(text, name) if text.lstrip().startswith("{") else _line_rules(text, name)
    try:
        return ClassMapping(tuple(rules))
    except LabelMapError as error:
        raise LabelMapError(f"{name}: {error}") from error


def _line_rules(text: str, name: str) -> list[Rule]:
    rules = []
    seen: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):
        if _BLANK.fullmatch(line):
            continue
        found = _LINE.fullmatch(line)
        try:
            if found is None:
                raise LabelMapError(f"{line.strip()[:60]!r} is neither NAME: source nor NAME: [source, source]")
            sources = re.findall(_NAME, found["one"] or found["many"])
            rule = Rule(_unquote(found["target"]), tuple(_unquote(source) for source in sources))
            _check_rule(rule, seen)
        except LabelMapError as error:
            raise LabelMapError(f"{name}:{number}: {error}") from error
        seen.add(rule.target)
        rules.append(rule)
    return rules


def _unquote(name: str) -> str:
    if not name.startswith('"'):
        return name
    try:
        return str(json.loads(name))
    except json.JSONDecodeError as error:
        raise LabelMapError(f"{name[:60]} is not a JSON string: {error.msg}") from error


def _json_rules(text: str, name: str) -> list[Rule]:
    try:
        # Lists of pairs and not dicts, in which a class given twice would not be noticed.
        pairs = json.loads(text, object_pairs_hook=lambda found: found)
    except json.JSONDecodeError as error:
        raise LabelMapError(f"{name}:{error.lineno}:{error.colno}: {error.msg}") from error
    except (RecursionError, ValueError) as error:  # ValueError: an integer of thousands of digits
        raise LabelMapError(f"{name} is not a JSON object of names: {error}") from error
    rules = []
    for target, value in pairs:
        sources = [value] if isinstance(value, str) else value
        if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
            raise LabelMapError(f"{name}: {target!r} must have a name or a list of names")
        rules.append(Rule(target, tuple(sources)))
    return rules


def _check_rule(rule: Rule, earlier: Iterable[str]) -> None:
    if is_background(rule.target):
        raise LabelMapError(f"{rule.target!r} is background, which always has id 0; remove the line")
    if is_placeholder(rule.target):
        raise LabelMapError(f"{rule.target!r} is the name of no class; remove the line, or give the class a name")
    if rule.target in earlier:
        raise LabelMapError(f"class {rule.target!r} is given twice")
    for name in (rule.target, *rule.sources):
        check_name(name)
    if not rule.sources:
        raise LabelMapError(f"class {rule.target!r} has no source")
    if len(set(rule.sources)) < len(rule.sources):
        raise LabelMapError(f"class {rule.target!r} has the same source twice")


def _not_found(rule: Rule, source: LabelMap) -> str:
    wanted = " or ".join(repr(name) for name in rule.sources)
    near = next((near for near in map(source.nearest, rule.sources) if near is not None), None)
    hint = f" (did you mean {near!r}?)" if near else ""
    return wanted + hint
