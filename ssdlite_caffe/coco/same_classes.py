"""Whether two label maps have the same classes: those of a model, and those that it is to be trained for.

Classes are compared by name, not by id. Names that differ only in capitals, spaces, hyphens or underscores are the same
(`traffic light`, `Traffic_Light`), unless that would make two classes of one label map the same. Background, id 0, is
always the same, whatever it is called.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ssdlite_caffe.coco.label_map import Label, LabelMap, numbered

_SHOWN = 3
"""Classes that are named in a message."""
_SEPARATORS = re.compile(r"[\s_\-]+")


class Respelt(NamedTuple):
    """A class whose name in the new label map differs from that in the old one, but means the same."""

    id: int
    name: str
    was: str


@dataclass(frozen=True)
class ClassMatch:
    """The classes of a new label map in an old one.

    Attributes:
        old: the label map of the model.
        new: the label map that it is to have.
        rows: for each class of `new` its class id in `old`, which is its row in the class predictors; None where it has
            none.
        respelt: classes that are the same by a name that is written differently.
    """

    old: LabelMap
    new: LabelMap
    rows: tuple[int | None, ...]
    respelt: tuple[Respelt, ...]

    @property
    def same(self) -> bool:
        """Whether both have the same classes, in whatever order."""
        return None not in self.rows and len(self.old) == len(self.new)

    @property
    def moved(self) -> tuple[int, ...] | None:
        """For each new class id the old one, where the classes are the same in another order; None otherwise."""
        rows = tuple(row for row in self.rows if row is not None)
        return rows if self.same and rows != tuple(range(len(rows))) else None

    @property
    def lacking(self) -> tuple[str, ...]:
        """Classes that the old label map does not have."""
        return tuple(name for name, row in zip(self.new.display_names, self.rows, strict=True) if row is None)

    @property
    def unused(self) -> tuple[str, ...]:
        """Classes that the new label map does not have."""
        used = set(self.rows)
        return tuple(name for row, name in enumerate(self.old.display_names) if row not in used)

    def difference(self, model: str) -> str:
        """What differs, as the end of a sentence; `model` is what has the old classes, as `the model`.

        Only where `same` is false.
        """
        if is_unnamed(self.old):
            return f"{model} has no class names (only class_1, class_2, ...)"
        if not self.lacking:
            return f"{model} also has {listed(self.unused)}"
        return f"{model} has no {listed(self.lacking)}" + (f", but {listed(self.unused)}" if self.unused else "")

    def remarks(self, model: str) -> list[str]:
        """Lines for the user on class predictors that are kept though not all is equal; `model` as in `difference`."""
        if not self.same:
            return []
        lines = []
        if self.respelt:
            parts = [f"{one.id} is {one.name!r}, was {one.was!r}" for one in self.respelt[:_SHOWN]]
            lines.append(f"taken as the same classes as in {model}: {'; '.join(parts)}{_more(len(self.respelt))}")
        if self.moved is not None:
            lines.append(f"{model} has the classes in another order: the rows of its class predictors are moved")
        return lines


def is_unnamed(labels: LabelMap) -> bool:
    """Whether the classes of a model have no names, but class_1, class_2, ..."""
    return labels.entries[1:] == numbered(len(labels)).entries[1:]


def listed(names: Iterable[str]) -> str:
    """The first names, quoted, and how many more there are."""
    known = list(names)
    return ", ".join(map(repr, known[:_SHOWN])) + _more(len(known))


def _more(count: int) -> str:
    return f" and {count - _SHOWN} more" if count > _SHOWN else ""


def match_classes(old: LabelMap, new: LabelMap) -> ClassMatch:
    """Find the classes of `new` in `old`.

    Two classes are the same if the display name of one is the name or the display name of the other.
    """
    rows: list[int | None] = [0, *[None] * (len(new) - 1)]
    respelt: list[Respelt] = []
    for key in (_as_it_is, _loosely):
        taken = {row for row in rows if row is not None}
        index = _Index([entry for entry in old.entries if entry.id not in taken], key)
        open_ = [entry for entry in new.entries if rows[entry.id] is None]
        found = {entry.id: index.find(entry) for entry in open_}
        wanted = Counter(found.values())
        for entry in open_:
            row = found[entry.id]
            if row is None or wanted[row] > 1:
                continue
            rows[entry.id] = row
            if key is _loosely:
                respelt.append(Respelt(entry.id, entry.display_name, old.entries[row].display_name))
    return ClassMatch(old, new, tuple(rows), tuple(respelt))


class _Index:
    """Finds classes by their names."""

    def __init__(self, entries: Iterable[Label], key: Callable[[str], str]) -> None:
        self._key = key
        self._shown: dict[str, set[int]] = {}
        self._named: dict[str, set[int]] = {}
        self._both: dict[tuple[str, str], set[int]] = {}
        for entry in entries:
            self._shown.setdefault(key(entry.display_name), set()).add(entry.id)
            self._named.setdefault(key(entry.name), set()).add(entry.id)
            self._both.setdefault((key(entry.name), key(entry.display_name)), set()).add(entry.id)

    def find(self, entry: Label) -> int | None:
        """The class that is the same; None where there is none, or several and none has the same id and name."""
        name, shown = self._key(entry.name), self._key(entry.display_name)
        nothing: set[int] = set()
        for ids in (
            self._both.get((name, shown), nothing),
            self._shown.get(shown, nothing),
            self._named.get(shown, nothing) | self._shown.get(name, nothing),
        ):
            if len(ids) == 1:
                return next(iter(ids))
            if ids:
                return entry.id if entry.id in ids and self._key is _as_it_is else None
        return None


def _as_it_is(text: str) -> str:
    return text


def _loosely(text: str) -> str:
    """The text without what is easily written differently; a text of nothing else stays as it is."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", text)).casefold() or text
