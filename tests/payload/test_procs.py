"""Subprocesses: their output, their end, and what they get to see."""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
from pathlib import Path

import pytest

from overlayspawner.payload.procs import TAIL_LINES, clean_env, redact, run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pass@example.org/simple", "https://***@example.org/simple"),
        ("https://token@example.org/", "https://***@example.org/"),
        ("git+https://u:p%40w@example.org/x.git", "git+https://***@example.org/x.git"),
        ("at http://a:b@c@d/x and https://e:f@g", "at http://***@d/x and https://***@g"),
        ("git+ssh://git@example.org/x.git", "git+ssh://git@example.org/x.git"),
        ("mail me@example.org", "mail me@example.org"),
        ("https://example.org/@scope", "https://example.org/@scope"),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_lines_are_streamed_and_redacted() -> None:
    lines: list[str] = []
    code = "import sys; print('https://a:b@c/'); print('two', file=sys.stderr); print('no newline', end='')"
    result = run([sys.executable, "-c", code], on_line=lines.append)
    assert result.rc == 0
    assert sorted(lines) == ["https://***@c/", "no newline", "two"]
    assert "a:b" not in result.tail


def test_the_tail_is_bounded() -> None:
    code = "print('x' * 1_000_000); [print(n) for n in range(1000)]"
    result = run([sys.executable, "-c", code])
    lines = result.tail.splitlines()
    assert lines[-1] == "999"
    assert len(lines) == TAIL_LINES
    result = run([sys.executable, "-c", "print('x' * 1_000_000)"])
    assert len(result.tail) < 100_000


def test_exit_codes_and_signals_are_told() -> None:
    assert run([sys.executable, "-c", "raise SystemExit(3)"]).rc == 3
    assert run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]).rc == -9


def test_last_words_that_come_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(selectors.DefaultSelector):
        """Sees nothing, and the program ends before anything else happens: a busy machine does that."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            time.sleep(0.5)
            return []

    monkeypatch.setattr(selectors, "DefaultSelector", Slow)
    result = run(
        [sys.executable, "-I", "-S", "-c", "print('first'); print('why it failed'); raise SystemExit(2)"]
    )
    assert (result.rc, result.tail) == (2, "first\nwhy it failed")


def test_a_missing_program_is_an_oserror() -> None:
    with pytest.raises(OSError):
        run(["/no/such/program"])


CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_cancelling_ends_the_whole_group() -> None:
    cancel = threading.Event()
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line))
        cancel.set()

    result = run([sys.executable, "-c", CHILD], on_line=on_line, cancel=cancel)
    assert result.cancelled
    assert not result.timed_out
    assert result.rc < 0
    assert gone(pids[0])


def test_a_timeout_ends_the_whole_group() -> None:
    pids: list[int] = []
    result = run([sys.executable, "-c", CHILD], on_line=lambda line: pids.append(int(line)), timeout=2)
    assert result.timed_out
    assert gone(pids[0])


def test_a_process_that_ignores_the_request_to_end_is_killed() -> None:
    cancel = threading.Event()
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    )
    result = run([sys.executable, "-c", code], on_line=lambda line: cancel.set(), cancel=cancel)
    assert result.rc == -9


def test_a_grandchild_that_keeps_the_pipe_does_not_hold_us_up() -> None:
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(p.pid)"
    )
    pids: list[int] = []
    result = run([sys.executable, "-c", code], on_line=lambda line: pids.append(int(line)), timeout=60)
    assert result.rc == 0
    assert not result.timed_out
    assert gone(pids[0])


def test_nothing_that_steers_an_installer_gets_through() -> None:
    bad = {
        "PIP_TARGET": "/x",
        "PIP_USER": "1",
        "PIP_PREFIX": "/x",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PYTHONPATH": "/x",
        "PYTHONHOME": "/x",
        "UV_SYSTEM_PYTHON": "1",
        "UV_PROJECT": "/x",
        "VIRTUAL_ENV": "/x",
        "JUPYTERHUB_API_TOKEN": "secret",
        "OVERLAYSPAWNER_SPEC": "{}",
    }
    assert clean_env({**bad, "PATH": "/bin", "LANG": "C.UTF-8"}) == {"PATH": "/bin", "LANG": "C.UTF-8"}


def test_the_environment_given_is_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAK", "1")
    code = "import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'))"
    result = run([sys.executable, "-c", code], env={"ONLY": "1", "PATH": os.environ["PATH"]})
    assert result.tail == "['ONLY', 'OVERLAYSPAWNER_RUN', 'PATH']"
