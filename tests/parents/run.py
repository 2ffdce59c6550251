"""Run the parents' own test suites twice, with their classes and with ours, and compare test by test.

    python -m tests.parents.run [docker] [swarm] [system-user] [kube] [--if-possible]

The tests come from the tags of the parents' repositories that are the installed versions: from
``DIR/dockerspawner`` and ``DIR/kubespawner`` where ``OVERLAYSPAWNER_PARENTS=DIR`` names clones of them, else
from GitHub. They run unchanged, in environments of what they ask for
(``.cache/parents``).

Exit status: 0 the same results, or differences that ``EXPECTED`` explains; 1 others; 3 a suite can't be had
or run here (0 with ``--if-possible``, which says what was left out).
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from tests.parents import places

ROOT = places.ROOT
HERE = Path(__file__).resolve().parent
TIMEOUT = 1500  # seconds, for one run of a suite


class Suite:
    """One suite of a parent's.

    Parameters
    ----------
    name:
        As on the command line.
    parent:
        The distribution whose suite it is.
    place:
        Whose class is swapped: ``module:class`` of ``overlay_swap.PLACES``.
    files:
        What pytest is given.
    engine:
        Returns a context manager that gives the environment variables with which the suite runs.
    without:
        Tests that can't run here: id → why.
    each:
        Given those variables, returns a context manager for one run; it gives more of them.
    """

    def __init__(
        self,
        name: str,
        parent: str,
        place: str,
        files: list[str],
        engine: Callable[[], AbstractContextManager[dict[str, str]]],
        without: dict[str, str] | None = None,
        each: Callable[[dict[str, str]], AbstractContextManager[dict[str, str]]] = nullcontext,
    ) -> None:
        self.name, self.parent, self.place, self.files = name, parent, place, files
        self.engine, self.without, self.each = engine, without or {}, each


DOCKER_FILES = ["tests/test_dockerspawner.py", "tests/test_deprecations.py", "tests/volumes_test.py"]
NO_REGISTRY = "it pulls from Docker Hub"
SUITES = [
    Suite(
        "docker",
        "dockerspawner",
        "dockerspawner:DockerSpawner",
        DOCKER_FILES,
        places.docker,
        {"tests.test_dockerspawner::test_image_pull_policy": NO_REGISTRY},
    ),
    Suite(
        "swarm", "dockerspawner", "dockerspawner:SwarmSpawner", ["tests/test_swarmspawner.py"], places.swarm
    ),
    Suite(
        "system-user",
        "dockerspawner",
        "dockerspawner:SystemUserSpawner",
        ["tests/test_systemuserspawner.py"],
        places.system_user,
    ),
    Suite(
        "kube",
        "jupyterhub-kubespawner",
        "kubespawner:KubeSpawner",
        ["tests"],
        places.kube,
        each=places.kube_namespaces,
    ),
]

# Differences that are right: test → why. Each is proved at every run: an empty subclass of the parent, with
# the name of ours, has to give what ours gives.
EXPECTED = {
    "tests.test_deprecations::test_deprecated_config": (
        "DockerSpawner's message names the class that runs, and ours has another name"
    ),
}


def run(suite: Suite, how: str, environment: dict[str, str], only: list[str] | None = None) -> dict[str, str]:
    """Run a suite with ``stock``, ``ours`` or ``control``; return each test's outcome.

    Raises
    ------
    places.Unavailable
        No test runs with the stock class.
    RuntimeError
        None does with another.
    """
    python = places.environment(suite.parent)
    source = places.source(suite.parent)
    log = places.CACHE / f"{suite.name}-{how}.log"
    with tempfile.TemporaryDirectory(prefix="overlay-parents-") as directory:
        report = Path(directory) / "report.xml"
        command = [
            str(python),
            "-m",
            "pytest",
            "-p",
            "overlay_swap",
            "-p",
            "no:cacheprovider",
            "-o",
            "addopts=",
            "-q",
        ]
        command += ["-o", "junit_family=xunit1", f"--junitxml={report}", *suite.files]
        command += shlex.split(os.environ.get("OVERLAYSPAWNER_PARENTS_ARGS", ""))  # for one test: -k ...
        for test in suite.without:
            command += ["--deselect", _node(test)]
        if only:
            command = [c for c in command if c not in suite.files] + [_node(test) for test in only]
        variables = {
            **os.environ,
            **environment,
            "PYTHONPATH": f"{HERE}:{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        variables["PATH"] = f"{python.parent}:{places.NODE_MODULES / '.bin'}:{variables['PATH']}"
        variables["OVERLAY_SWAP"] = "" if how == "stock" else how
        variables["OVERLAY_SWAP_PLACE"] = suite.place
        with log.open("a" if only else "w") as out, suite.each(environment) as more:
            subprocess.run(
                command,
                cwd=source,
                env={**variables, **more},
                stdout=out,
                stderr=out,
                timeout=TIMEOUT,
                check=False,
            )
        found = outcomes(report) if report.exists() else {}
        if not found:
            problem = f"no test of the suite runs, {how}: see {log.relative_to(ROOT)}"
            raise places.Unavailable(problem) if how == "stock" else RuntimeError(problem)
        return found


def _node(test: str) -> str:
    module, _, name = test.partition("::")
    return f"{module.replace('.', '/')}.py::{name}"


def outcomes(report: Path) -> dict[str, str]:
    """Return test → ``passed``, ``failed`` or ``skipped`` out of a JUnit report."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found[test] = "failed" if found.get(test) == "failed" else outcome
    return found


def compare(suite: Suite, environment: dict[str, str]) -> tuple[str, list[str]]:
    """Return a line of the table, and the differences that nothing explains."""
    results = {how: run(suite, how, environment) for how in ("stock", "ours")}
    # What failed gets a second chance, on both sides: the suites' patience is made for quiet machines.
    again = sorted({t for r in results.values() for t, outcome in r.items() if outcome == "failed"})
    if again:
        for how, result in results.items():
            second = run(suite, how, environment, again)
            result.update({t: o for t, o in second.items() if o == "passed"})
    stock, ours = results["stock"], results["ours"]
    different = sorted(t for t in stock.keys() | ours.keys() if stock.get(t) != ours.get(t))
    known = [t for t in different if t in EXPECTED]
    control = run(suite, "control", environment, known) if known else {}
    wrong = []
    for test in different:
        line = f"{suite.name}: {test}: {stock.get(test, 'missing')} → {ours.get(test, 'missing')}"
        if control.get(test) == ours.get(test) and test in known:
            print(f"{line}, as with an empty subclass: {EXPECTED[test]}")
        else:
            wrong.append(line)
    for test in sorted(t for t in stock if stock[t] == ours.get(t) == "failed"):
        print(f"{suite.name}: {test}: fails with both")
    for test, why in suite.without.items():
        print(f"{suite.name}: {test}: not run, because {why}")
    row = [suite.name, version(suite.parent), len(stock), _passed(stock), _passed(ours), len(different)]
    return "| " + " | ".join(str(cell) for cell in [*row, len(wrong)]) + " |", wrong


def _passed(results: dict[str, str]) -> int:
    return sum(outcome == "passed" for outcome in results.values())


def main() -> int:
    """Run what the command line names; return the exit status."""
    names = [suite.name for suite in SUITES]
    parser = argparse.ArgumentParser(prog="python -m tests.parents.run")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--if-possible", action="store_true", help="what can't be had here is no failure")
    options = parser.parse_args()
    unknown = set(options.suites) - set(names)
    if unknown:
        parser.error(f"there is no suite {', '.join(sorted(unknown))}: {', '.join(names)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that images and namespaces are removed
    rows, wrong, missing = [], [], []
    for suite in SUITES:
        if options.suites and suite.name not in options.suites:
            continue
        print(f"== {suite.name} ==", flush=True)
        try:
            with ExitStack() as stack:
                row, differences = compare(suite, stack.enter_context(suite.engine()))
        except places.Unavailable as e:
            missing.append(f"{suite.name}: not run: {e}")
            continue
        except (RuntimeError, subprocess.TimeoutExpired) as e:
            wrong.append(f"{suite.name}: {e}")
            continue
        rows.append(row)
        wrong += differences
    print("\n| suite | version | tests | passed, stock | passed, ours | different | unexplained |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    for line in [*missing, *(f"UNEXPLAINED {line}" for line in wrong)]:
        print(line)
    if wrong:
        return 1
    return 3 if missing and not options.if_possible else 0


if __name__ == "__main__":
    sys.exit(main())
