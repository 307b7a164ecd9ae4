"""What a step of the check found, and the files that hold all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["ok", "failed", "skipped"]


@dataclass
class Result:
    """One step.

    Attributes:
        name: of the step.
        verdict: whether what must hold held; skipped where something that the step needs is not on this machine.
        said: one line: what was found, or why it failed or was skipped.
        rows: a table, each row with the same keys.
        seconds: that it took.
    """

    name: str
    verdict: Verdict
    said: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def verdict_of(results: Sequence[Result]) -> str:
    """One line for all steps."""
    failed = [result.name for result in results if result.verdict == "failed"]
    skipped = [result.name for result in results if result.verdict == "skipped"]
    held = len(results) - len(failed) - len(skipped)
    rest = f", {len(skipped)} skipped ({'; '.join(skipped)})" if skipped else ""
    if failed:
        return f"FAILED: {'; '.join(failed)} ({held} of {len(results)} steps hold{rest})"
    return f"OK: {held} of {len(results)} steps hold{rest}" if held else f"NOTHING WAS CHECKED{rest}"


def write(folder: Path, machine: dict[str, Any], results: Sequence[Result]) -> None:
    """Write gpu-check.json and gpu-check.md: after each step, so that a killed check leaves what it found."""
    data = {"verdict": verdict_of(results), "machine": machine, "steps": [asdict(result) for result in results]}
    for name, text in (
        ("gpu-check.json", json.dumps(data, indent=2) + "\n"),
        ("gpu-check.md", markdown(machine, results)),
    ):
        unfinished = folder / f".{name}.part"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(folder / name)


def markdown(machine: dict[str, Any], results: Sequence[Result]) -> str:
    """All of it as a page."""
    return "\n".join(_lines(machine, results)) + "\n"


def _lines(machine: dict[str, Any], results: Sequence[Result]) -> Iterator[str]:
    yield f"**{verdict_of(results)}**"
    yield ""
    yield from (f"- {name}: {value}" for name, value in machine.items())
    for result in results:
        yield ""
        yield f"## {result.name}: {result.verdict}"
        yield ""
        yield f"{result.said} ({result.seconds:.0f} s)"
        if result.rows:
            names = list(result.rows[0])
            yield ""
            yield f"| {' | '.join(names)} |"
            yield f"|{'---|' * len(names)}"
            yield from (f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in result.rows)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
