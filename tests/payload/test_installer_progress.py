"""What uv and pip show while they work, read: packages, versions, bytes; bounded and never backwards."""

from __future__ import annotations

from typing import Any

import pytest

from overlayspawner.payload.installer import progress
from overlayspawner.payload.installer.pip_progress import PipProgress
from overlayspawner.payload.installer.progress import Packages, size
from overlayspawner.payload.installer.uv_progress import UvProgress, with_bars
from overlayspawner.payload.server.job import MAX_EVENTS, Job

BAR = "------------------------------"


class Heard:
    """Whoever listens."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[dict[str, Any]], str, bool, int]] = []

    def __call__(self, changed: list[dict[str, Any]], message: str, quiet: bool, expected: int) -> None:
        self.calls.append((changed, message, quiet, expected))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("88 B", 88),
        ("3.82 MiB", 4005560),
        ("16.1MiB", 16882074),
        ("891 bytes", 891),
        ("much", None),
        ("..B", None),
    ],
)
def test_sizes(text: str, count: int | None) -> None:
    assert size(text) == count


def test_uv_s_bars() -> None:
    heard, lines = Heard(), []
    shown = UvProgress(lines.append, heard)
    assert shown.drawn("\u2819 big==1.0")
    assert shown.drawn(
        f"\u2819 Preparing packages... (0/3)   big   {BAR} 1.00 MiB/2.00 MiB   some.small {BAR} 5 B/9 B"
    )
    assert shown.packages.known["big"] == {
        "name": "big",
        "version": "1.0",
        "state": "downloading",
        "bytes": 2**20,
        "total": 2**21,
    }
    assert shown.packages.known["some-small"]["bytes"] == 5
    assert heard.calls[-1][3] == 3
    # a picture of an earlier moment, and one without the bar that has come to its end
    shown.drawn(f"\u2819 Preparing packages... (0/3)   big {BAR} 0.50 MiB/2.00 MiB")
    assert shown.packages.known["big"]["bytes"] == 2**20
    assert shown.packages.known["some-small"]["state"] == "ready"
    shown.drawn(f"   Building raw==2.0   big {BAR} 1.50 MiB/2.00 MiB")
    assert shown.packages.known["raw"]["state"] == "building"
    assert shown.drawn("\u2588\u2588\u2591\u2591 [2/3] big==1.0")
    assert shown.packages.known["big"]["state"] == "ready" and shown.packages.known["big"]["bytes"] == 2**21
    for text in ("Installed 3 packages in 1ms", "error: nothing was found", "  \u00d7 No solution found"):
        assert not shown.drawn(text)
        shown.line(text)
    assert lines[0] == "Installed 3 packages in 1ms" and len(lines) == 3


def test_uv_without_a_terminal() -> None:
    heard, lines = Heard(), []
    shown = UvProgress(lines.append, heard)
    for text in (
        "Downloading big (3.8MiB)",
        "   Building raw==2.0",
        "      Built raw==2.0",
        " Downloaded big",
        " + big==1.0",
    ):
        assert not shown.drawn(text)
        shown.line(text)
    assert {n: (p["version"], p["state"]) for n, p in shown.packages.known.items()} == {
        "big": ("1.0", "ready"),
        "raw": ("2.0", "ready"),
    }
    assert lines == [" + big==1.0"]
    assert with_bars({"UV_NO_PROGRESS": "1", "RUST_LOG": "debug", "A": "b"}) == {"A": "b"}


def test_pip_s_figures() -> None:
    heard, lines = Heard(), []
    shown = PipProgress(lines.append, heard)
    for text in (
        "Collecting big",
        "  Downloading big-1.0-py3-none-any.whl.metadata (89 bytes)",
        "Progress 0 of 89",
        "Downloading https://files.example.org/big-1.0-py3-none-any.whl (4.0 MB)",
        "Progress 1000 of 4002274",
        "Progress 500 of 4002274",
    ):
        if not shown.drawn(text):
            shown.line(text)
    assert shown.packages.known["big"]["bytes"] == 1000
    assert shown.packages.known["big"]["total"] == 4002274
    for text in (
        "Downloading raw-2.0.tar.gz (1.0 kB)",
        "Progress 1000 of 1000",
        "  Building wheel for raw (pyproject.toml): started",
    ):
        if not shown.drawn(text):
            shown.line(text)
    assert shown.packages.known["big"]["state"] == "ready"
    assert shown.packages.known["raw"]["state"] == "building"
    shown.line("Using cached kept-3.0-py3-none-any.whl (891 bytes)")
    assert shown.packages.known["kept"]["state"] == "ready"
    assert "Collecting big" in lines and not any("Progress" in line for line in lines)


def test_events_about_bytes_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    heard = Heard()
    packages = Packages(heard)
    for n in range(1000):
        now[0] += 0.01
        packages.see("big", "downloading", done=n, total=1000)
        packages.tell()
    assert 40 <= len(heard.calls) <= 51
    packages.finish()
    assert heard.calls[-1][0][0]["bytes"] == 999


def test_a_job_with_many_packages_stays_small() -> None:
    job, heard = Job("install"), Heard()
    packages = Packages(heard)
    for n in range(2000):
        packages.see(f"package-{n}", "downloading", done=1, total=2)
    packages.tell("many")
    data = job.take({"phase": "downloading", "message": "many", "packages": heard.calls[0][0]})
    assert len(data["packages"]) == len(job.packages) == progress.MAX_PACKAGES
    for n in range(MAX_EVENTS * 3):
        job.take({"phase": "downloading", "message": f"line {n}", "quiet": n % 2 == 1})
    log = job.to_dict(log=True)["log"]
    assert len(log) == MAX_EVENTS and not any(line.endswith("1") for line in log)


def test_a_job_s_bar_follows_the_bytes_and_never_goes_back() -> None:
    job = Job("install")
    shares = []

    def tell(phase: str, done: int, *, more: int = 0) -> None:
        entry = {"name": "big", "version": "1", "state": "downloading", "bytes": done, "total": 1_000_000}
        others = [{**entry, "name": f"other-{n}", "bytes": 0} for n in range(more)]
        job.take({"phase": phase, "message": "", "packages": [entry, *others]})
        shares.append(job.progress)

    tell("downloading", 100_000)
    tell("downloading", 500_000)
    tell("downloading", 500_000, more=9)  # nine more have turned up
    tell("resolving", 500_000)
    tell("downloading", 1_000_000, more=9)
    assert shares == sorted(shares)
    assert shares[0] < shares[1] == shares[2] == shares[3] < 0.7
