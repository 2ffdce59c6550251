"""Work that hangs or takes too long is ended, with all that it has started; work that gets on is not."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from overlayspawner.payload import proctable
from overlayspawner.payload.joblimits import JobLimits
from overlayspawner.payload.procs import Result, run


def limited(code: str, limits: JobLimits, **options: object) -> Result:
    return run([sys.executable, "-c", code], cancel=limits, **options)  # type: ignore[arg-type]


def test_silence_is_noticed() -> None:
    limits = JobLimits(threading.Event(), silence=0.5)
    assert limited("import time; time.sleep(60)", limits).cancelled
    assert limits.over == "silence"


def test_a_spinner_does_not_hide_it() -> None:
    code = (
        "import itertools, sys, time\n"
        "for c in itertools.cycle('\u2819\u2839\u2838'):\n"
        "    sys.stdout.write(c + ' waiting\\r\\x1b[2K'); sys.stdout.flush(); time.sleep(0.2)\n"
    )
    limits = JobLimits(threading.Event(), silence=1.5)
    assert limited(code, limits, drawn=lambda text: False).cancelled
    assert limits.over == "silence"


def test_the_whole_time_is_limited_too() -> None:
    limits = JobLimits(threading.Event(), total=0.5)
    assert limited("while True: print('busy')", limits).cancelled
    assert limits.over == "total"


COMPUTE = "import time; end = time.monotonic() + 3\nwhile time.monotonic() < end: pass"
GETS_ON = {
    "prints": "import time\nfor n in range(30): print(n, flush=True); time.sleep(0.1)",
    "computes": COMPUTE,
    # in a session of its own, as compilers' servers are
    "a child computes": f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {COMPUTE!r}], start_new_session=True, stdout=subprocess.DEVNULL)
""",
    "writes": """
import os, time
with open(os.devnull, "wb", 0) as f:
    for _ in range(60):
        f.write(bytes(10_000)); time.sleep(0.05)
""",
}


@pytest.mark.parametrize("code", GETS_ON.values(), ids=list(GETS_ON))
def test_what_gets_on_is_let_be(code: str) -> None:
    limits = JobLimits(
        threading.Event(), silence=1.5
    )  # on a busy machine Python itself takes a second to start
    result = limited(code, limits)
    assert (result.rc, limits.over) == (0, "")


def test_who_waited_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = JobLimits(threading.Event(), total=1000)
    later = time.monotonic() + 2000
    monkeypatch.setattr(time, "monotonic", lambda: later)
    limits.restart()
    assert not limits.is_set()


STAYS = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[2:] == ["parent"]:
    for how in ([], ["away"], ["orphan"]):
        subprocess.Popen([sys.executable, *sys.argv[:2], *how], start_new_session=bool(how))
    while len(open(sys.argv[1]).read().split()) < 3:
        time.sleep(0.02)
    print("ready", flush=True)
elif sys.argv[2:] == ["orphan"] and os.fork():
    os._exit(0)  # nobody's child any more
else:
    with open(sys.argv[1], "a") as f:
        f.write(f"{os.getpid()}\\n")
time.sleep(120)
"""


def test_cancelling_ends_children_that_moved_away_and_ignore_it(tmp_path: Path) -> None:
    pids, script = tmp_path / "pids", tmp_path / "stays.py"
    pids.write_text("")
    script.write_text(STAYS)
    cancel = threading.Event()
    argv = [sys.executable, str(script), str(pids), "parent"]
    result = run(argv, cancel=cancel, on_line=lambda line: cancel.set())
    assert result.cancelled and result.tail == "ready" and result.rc == -9
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 3
    assert [pid for pid in started if _runs(pid)] == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_belongs_together_is_found_by_its_mark() -> None:
    marks: list[str] = []

    class Look:
        def is_set(self) -> bool:
            return bool(marks) and bool(proctable.marked(marks[0]))

        def look(self, mark: str, signs: int, raw: int) -> None:
            marks.append(mark)

    result = run([sys.executable, "-c", "import time; time.sleep(60)"], cancel=Look())
    assert result.cancelled
    assert proctable.marked(marks[0]) == []
    assert proctable.RUN_ENV not in os.environ
