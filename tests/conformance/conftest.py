"""The engines to run on, one hub for each, and the matrix of what came out.

``--engine NAME`` (again for more) or ``OVERLAYSPAWNER_ENGINES=docker,kube`` names them. With
``OVERLAYSPAWNER_MATRIX=FILE`` what came out is kept in a file; engines that did not
run keep what they have there.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import adapter as adapters
from tests.conformance.adapter import Adapter
from tests.support.index import LocalIndex

HERE = Path(__file__).parent


def _checks() -> dict[str, str]:
    tree = ast.parse((HERE / "test_engines.py").read_text())
    found = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name.startswith("test_")]
    return {f.name.removeprefix("test_"): ast.get_docstring(f) or "" for f in found}


CHECKS = _checks()
"""All checks in their order, with what each shows."""
MARKS = {"local": (pytest.mark.slow,), "kube": (pytest.mark.engine, pytest.mark.kube)}
"""Marks besides those of the others."""


def _asked(config: pytest.Config) -> list[str]:
    named = (
        config.getoption("--engine") or os.environ.get("OVERLAYSPAWNER_ENGINES", "").replace(",", " ").split()
    )
    unknown = set(named) - set(adapters.ENGINES)
    if unknown:
        raise pytest.UsageError(
            f"no such engine: {', '.join(sorted(unknown))}; there are {', '.join(adapters.ENGINES)}"
        )
    missing = {
        name for name in adapters.ENGINES if not (HERE / "engines" / f"{name.replace('-', '_')}.py").exists()
    }
    if missing & set(named):
        raise pytest.UsageError(f"there is no adapter for {', '.join(sorted(missing & set(named)))} so far")
    return [name for name in adapters.ENGINES if name in (named or adapters.USUAL) and name not in missing]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each check once for each engine."""
    if "engine" in metafunc.fixturenames:
        params = []
        for name in _asked(metafunc.config):
            marks = MARKS.get(name, (pytest.mark.engine,))
            params.append(pytest.param(name, marks=[*marks, pytest.mark.conformance]))
        metafunc.parametrize("engine", params, indirect=True, scope="session")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, index: LocalIndex, tmp_path_factory: Any) -> Iterator[Adapter]:
    """The adapter of an engine, with its hub running."""
    directory = tmp_path_factory.mktemp(request.param)
    # servers that are other users have to get to what is in there
    for place in (directory, *directory.parents[:2]):
        place.chmod(0o755)
    with adapters.adapter(request.param)(index, directory).running() as running:
        yield running


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    """Add to the report of each check what the matrix shows."""
    outcome = yield
    report = outcome.get_result()
    name = getattr(item, "callspec", None) and item.callspec.params.get("engine")
    if not name or not (report.when == "call" or report.outcome != "passed"):
        return
    told = report.outcome
    if report.skipped:
        told = str(call.excinfo.value) if call.excinfo else "skipped"
    check = item.originalname.removeprefix("test_")
    report.user_properties.append(("conformance", [name, check, told, round(report.duration, 1)]))


@pytest.fixture(autouse=True)
def _applies(request: pytest.FixtureRequest) -> None:
    """Leave out what an engine can't have, before its hub is started for that."""
    callspec = getattr(request.node, "callspec", None)
    if callspec and "engine" in callspec.params:
        check = request.node.originalname.removeprefix("test_")
        reason = adapters.adapter(callspec.params["engine"]).not_applicable.get(check)
        if reason:
            pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the matrix, and keep it where that was asked for."""
    found: dict[str, dict[str, str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == "conformance" and (value[2] != "passed" or value[1] not in found.get(value[0], {})):
                    found.setdefault(value[0], {})[value[1]] = value[2]
    if not found:
        return
    terminalreporter.section("engines and checks")
    for name, checks in found.items():
        for check, told in checks.items():
            text = told if told in ("passed", "failed") else f"not applicable ({told})"
            terminalreporter.write_line(f"{name} \N{MULTIPLICATION SIGN} {check.replace('_', ' ')}: {text}")
    target = os.environ.get("OVERLAYSPAWNER_MATRIX")
    if target:
        keep(Path(target), found)


def keep(path: Path, found: dict[str, dict[str, str]]) -> None:
    """Write what came out of some engines into a file that has what others did before."""
    known = json.loads(path.read_text())["engines"] if path.exists() else {}
    known.update({name: {c: told[c] for c in CHECKS if c in told} for name, told in found.items()})
    ordered = {name: known[name] for name in adapters.ENGINES if name in known}
    names = {name: adapters.ENGINES[name] for name in ordered}
    results = {"checks": CHECKS, "names": names, "engines": ordered}
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
