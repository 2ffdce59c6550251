"""What the manual says about engines is of these checks; adapters leave out none that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.adapter import ENGINES, adapter
from tests.conformance.conftest import CHECKS, HERE

RESULTS = Path(__file__).parents[2] / "docs" / "reference" / "engines.json"
WRITTEN = [name for name in ENGINES if (HERE / "engines" / f"{name}.py").exists()]


def test_the_manual_has_these_checks() -> None:
    results = json.loads(RESULTS.read_text())
    told = f"run the suite with OVERLAYSPAWNER_MATRIX={RESULTS.relative_to(Path.cwd())}, then `make docs`"
    assert results["checks"] == CHECKS, told
    assert set(results["engines"]) <= set(ENGINES), told
    for name, checks in results["engines"].items():
        assert set(checks) == set(CHECKS), f"{name}: {told}"
        assert "failed" not in checks.values(), name


@pytest.mark.parametrize("name", WRITTEN)
def test_an_adapter_leaves_out_only_what_there_is(name: str) -> None:
    found = adapter(name)
    assert found.name == name
    assert set(found.not_applicable) <= set(CHECKS)
    assert all(reason.endswith(".") for reason in found.not_applicable.values())
