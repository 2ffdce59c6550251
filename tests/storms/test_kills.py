"""``docker kill`` at random moments of a real installation: what the next container finds, and makes of it.

``OVERLAYSPAWNER_KILLS=N`` says how often (``make test-all``: 50).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.storms.test_writers import assert_unbroken, assert_whole
from tests.support.boxes import Boxes
from tests.support.index import LocalIndex

pytestmark = [pytest.mark.engine, pytest.mark.network, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("OVERLAYSPAWNER_KILLS", "5"))
NEW = {"scikit-learn", "scipy", "joblib", "threadpoolctl"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    """Containers whose index has the real wheels of scikit-learn and all that it needs."""
    directory = tmp_path_factory.mktemp("real-wheels")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--only-binary", ":all:", "--dest", str(directory), "scikit-learn"),
        ],
        check=True,
    )
    with LocalIndex(directory, recipes=False) as index:
        for path in sorted(directory.glob("*.whl")):
            index.add(path)
        with Boxes(index_url=index.container_url) as made:
            yield made


def moment(number: int, whole: float, choose: random.Random) -> float:
    """Return when to kill: anywhere, or in the second half, where the files are moved."""
    return choose.uniform(0, whole) if number % 2 == 0 else choose.uniform(whole * 0.55, whole)


def phase(seen: dict[str, Any], answered: bool) -> str:
    """Say how far the installation was when its container died."""
    if answered:
        return "after its answer"
    if seen["pending"]:
        return "in the commit"
    if "scikit-learn" in seen["packages"]:
        return "after the commit"
    if any("stage-" in path for path in seen["leftovers"]):
        return "in resolving or staging"
    return "before the stage"


def test_docker_kill_in_a_real_installation(real: Boxes, record_property: Any) -> None:
    home = real.home("learn")
    # fills uv's cache, which stays in the home
    assert real.overlay(home, "install", "scikit-learn", timeout=600)["rc"] == 0
    assert real.overlay(home, "uninstall", "scikit-learn")["rc"] == 0
    box = real.start(home, "patiently", words=["install", "scikit-learn"])
    answer = box.wait()[-1]
    assert answer["rc"] == 0
    whole = answer["took"]
    box.remove()
    assert real.overlay(home, "uninstall", "scikit-learn")["rc"] == 0
    choose = random.Random(KILLS)
    tally: Counter[tuple[str, str]] = Counter()
    modules = ("sklearn.linear_model", "scipy.linalg", "joblib", "threadpoolctl", "numpy")
    for number in range(KILLS):
        after = moment(number, whole, choose)
        box = real.start(home, "patiently", words=["install", "scikit-learn"])
        box.until("up")
        time.sleep(after)
        box.kill()
        answered = [line["took"] for line in box.lines() if "took" in line]
        # the machine is faster and slower at times
        whole = answered[0] if answered else max(whole, after)
        box.remove()
        where = phase(real.look(home), bool(answered))
        mended = real.overlay(home, "doctor", "--fix")
        assert mended["rc"] == 0, (number, after, where, mended)
        seen = real.look(home, *modules)
        assert_whole(seen)
        assert_unbroken(seen)
        assert not seen["pending"]
        if "scikit-learn" in seen["packages"]:
            assert set(seen["packages"]) >= NEW
            assert seen["requirements"] == ["scikit-learn"]
            state = "new"
            assert real.overlay(home, "uninstall", "scikit-learn")["rc"] == 0
        else:
            assert not NEW & set(seen["packages"])
            assert seen["requirements"] == []
            state = "old"
        tally[where, state] += 1
        print(f"kill {number + 1} after {after:.2f} of {whole:.2f} s, {where}: {state}", file=sys.stderr)
    record_property("kills", {f"{where}: {state}": count for (where, state), count in tally.items()})
    print(dict(tally), file=sys.stderr)
    assert sum(tally.values()) == KILLS
    assert {state for _, state in tally} <= {"old", "new"}
    # the test is worth something only if kills hit the work itself
    assert sum(count for (where, _), count in tally.items() if where != "after its answer") >= KILLS // 2
