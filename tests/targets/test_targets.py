"""Each program of the table loads and runs real nets; what it computes is OpenCV's. `make test-targets` runs these."""

from __future__ import annotations

import pytest

from tests.targets.cases import CASES, Case, marks
from tests.targets.environments import UnavailableError, environment
from tests.targets.measure import measure
from tests.targets.workshop import Workshop, find_shared

pytestmark = [pytest.mark.target, pytest.mark.tensorflow, pytest.mark.opencv]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("targets"), find_shared())


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=marks(c.program, c.model, f"target {c.program}")) for c in CASES]
)
def test_target(case: Case, workshop: Workshop) -> None:
    source = workshop.source(case.model)
    if source is None or not source.exists():
        pytest.skip(f"no shared/models/{case.model} beside the repository")
    try:
        python = environment(case.program)
    except UnavailableError as error:
        pytest.skip(str(error))
    found = measure(case, python, workshop)
    if case.fails:
        assert not found.runs, "it works now: change the table"
        assert case.fails in f"{found.message}\n{found.log}"
        return
    assert found.runs, f"{found.message}\n{found.log[-2000:]}"
    if case.wrong:
        assert found.paired < 0.5 * found.expected, "it works now: change the table"
        return
    assert case.net == "deploy" or found.relative.keys() == {"mbox_loc", "mbox_conf"}
    assert all(value <= case.bound for value in found.relative.values()), found.relative
    assert found.expected > 0
    assert found.paired >= case.paired * found.expected, found
    assert found.extra <= (1 - case.paired) * found.expected, found
