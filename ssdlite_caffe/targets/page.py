"""The tables of docs/runtimes.md, made of the tables of targets and of what lint takes.

python -m ssdlite_caffe.targets.page docs/runtimes.md
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import FamilyName
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.limits import LIMITS, judge
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse
from ssdlite_caffe.targets.listing import no_nets
from ssdlite_caffe.targets.table import TARGETS
from ssdlite_caffe.targets.target import Edit, NetStage, Target, TargetNet

BEGIN = "<!-- made by `make pages` of the tables of targets; do not edit -->"
END = "<!-- end of the tables of targets -->"
_FIELDS = ("activation", "padding", "depthwise", "gate", "linear", "priors")
"""Fields of a dialect that decide which programs take a net."""
_OF_V3 = frozenset({"gate", "linear"})


def tables() -> str:
    """The tables as Markdown."""
    return f"{_table(_HEAD, map(_program, TARGETS.values()))}\n{_DIALECTS}\n{_table(_CHOICES, map(_choices, _taken()))}"


def with_tables(page: str) -> str:
    """A page with the tables between its two marks.

    Raises:
        ValueError: the page has not both marks, once and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in before + after:
        raise ValueError(f"the page must have {BEGIN} and {END} once each")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def main(arguments: Sequence[str]) -> None:
    """Write the tables of a page anew; `arguments`: its path."""
    path = Path(arguments[0])
    path.write_text(with_tables(path.read_text("utf-8")), "utf-8")


_HEAD = ("`--target`", "program", "nets", "also", "checked")
_CHOICES = ("`--target`", *(f"`--{field}`" for field in _FIELDS), "known from")
_DIALECTS = """\
Choices of a dialect that `lint` finds no error in, where all else is as the target has it; in brackets those that it
warns of. `gate` and `linear` are of V3.
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _program(target: Target) -> Sequence[str]:
    nets = "; ".join(_net(one) for one in target.nets)
    if no_nets(target):
        nets = f"none: {no_nets(target).partition(';')[0]}"
    also = {
        "decoders": target.decoder, "default boxes": target.priors, "calibration images": target.calibration,
    }  # fmt: skip
    with_it = ", ".join(text for text, has in also.items() if has)
    return f"`{target.name}`", target.title, nets, with_it, f"{target.checked.how}: {target.checked.what}"


def _net(one: TargetNet) -> str:
    options = [f"`{text}`" for text in one.option_texts()]
    if one.score_threshold is not None:
        options.append(f"`--score-threshold {one.score_threshold:g}`")
    return ", ".join([one.stage, *options])


def _taken() -> list[Target]:
    """The targets that take any detector."""
    return [target for target in TARGETS.values() if not no_nets(target)]


def _choices(target: Target) -> Sequence[str]:
    source = LIMITS[target.limits].source
    return (f"`{target.name}`", *(_cell(target, field) for field in _FIELDS), f"{source.how}: {source.what}")


def _cell(target: Target, field: str) -> str:
    family: FamilyName = "v3-small" if field in _OF_V3 else "v1"
    if target.refuses(_detector(family)):
        return "no V3"
    one = target.nets[0]
    usual = _problems(target, one.dialect, family)
    found = []
    for choice in typing.get_args(typing.get_type_hints(Dialect)[field]):
        errors, warnings = _problems(target, dataclasses.replace(one.dialect, **{field: choice}), family)
        if not errors:
            found.append(f"({choice})" if warnings - usual[1] else choice)
    return ", ".join(found) or "none"


def _problems(target: Target, dialect: Dialect, family: FamilyName) -> tuple[set[str], set[str]]:
    """Texts of the errors and of the warnings for a target's first net in another dialect."""
    one = target.nets[0]
    try:
        net = _net_of(family, dialect, one.stage, one.edit)
    except ArchError as error:
        return {str(error)}, set()
    runtime = LIMITS[target.limits]
    shapes = infer(net, rules=runtime.rules)
    found = [problem for problem in shapes.problems if problem.kind not in runtime.harmless]
    found += judge(net, target.limits, shapes.layers)
    return (
        {problem.text for problem in found if problem.severity == "error"},
        {problem.text for problem in found if problem.severity == "warning"},
    )


@functools.cache
def _net_of(family: FamilyName, dialect: Dialect, stage: NetStage, edit: Edit | None) -> caffe_pb2.NetParameter:
    text = render(_detector(family), dialect, stage)
    return parse(edit.text(text) if edit else text, caffe_pb2.NetParameter, stage, allow_unknown=edit is not None)


@functools.cache
def _detector(family: FamilyName) -> NetDesc:
    return build(default_arch(family, 4))


if __name__ == "__main__":
    main(sys.argv[1:])
