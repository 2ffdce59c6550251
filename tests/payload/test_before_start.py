"""Packages that are installed before the server starts: through the launcher, from a real index."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.payload.damage.conftest import Damaged
from tests.support.index import LocalIndex


@pytest.fixture
def fresh(tmp_path: Path) -> Damaged:
    """A home whose env for this image is not made yet."""
    home = Damaged(tmp_path)
    home.overlay.mkdir(parents=True)
    (home.overlay / "requirements.txt").write_text("tinyleaf\n")
    return home


@pytest.mark.parametrize("lifetime", ["persistent", "ephemeral"])
def test_they_are_there_when_the_server_starts(fresh: Damaged, index: LocalIndex, lifetime: str) -> None:
    started = fresh.start(restore="before-start", index_url=index.url, lifetime=lifetime)
    env = started.context.env
    assert env is not None
    assert list(Path(env.site_packages).glob("tinyleaf-*.dist-info")), started.log
    assert "overlayspawner: [restoring] " in started.log
    assert "restore-waiting" not in started.codes()


@pytest.mark.parametrize("lifetime", ["persistent", "ephemeral"])
@pytest.mark.parametrize("how", ["hangs", "refuses", "is gone"])
def test_an_index_that_does_not_answer_delays_a_start_but_does_not_stop_it(
    fresh: Damaged, index: LocalIndex, lifetime: str, how: str
) -> None:
    urls = {
        "hangs": index.prefixed("hang"),
        "refuses": index.prefixed("500"),
        "is gone": "http://127.0.0.1:9/",
    }
    started = fresh.start(restore="before-start", index_url=urls[how], start_timeout=4.0, lifetime=lifetime)
    assert started.context.mode == "normal"
    assert started.codes().keys() & {"restore-waiting", "restore-partial"}
    # what was asked for stays; the running server, or the next start, has it
    assert (fresh.overlay / "requirements.txt").read_text() == "tinyleaf\n"
    again = fresh.start(restore="before-start", index_url=index.url, lifetime=lifetime)
    assert list(Path(again.context.env.site_packages).glob("tinyleaf-*.dist-info")), again.log


def test_it_is_left_to_the_server_by_default(fresh: Damaged, index: LocalIndex) -> None:
    started = fresh.start(index_url=index.url)
    assert not list(Path(started.context.env.site_packages).glob("tinyleaf*"))
    assert "[restoring]" not in started.log
