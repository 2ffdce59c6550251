"""The script that brings a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.engine
@pytest.mark.beside
def test_asked_for_through_make_it_does_not_call_itself(tmp_path: Path) -> None:
    """``make engine-up ENGINE=kube`` leaves ENGINE to the script, which asks for Docker on its way."""
    if os.geteuid() != 0:
        pytest.skip("only root may start a cluster")
    project, assets = tmp_path / "project", tmp_path / "assets"
    for name in ("engine.sh", "kube.sh"):
        target = project / "scripts" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((ROOT / "scripts" / name).read_text())
        target.chmod(0o755)
    (assets / "engines").mkdir(parents=True)
    (assets / "engines" / "k8s-up.sh").write_text('mkdir -p "$K8S_RUN"; touch "$K8S_RUN/kubeconfig"\n')
    environ = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    process = subprocess.Popen(
        ["scripts/engine.sh"],
        cwd=project,
        env={**environ, "ENGINE": "kube", "OVERLAY_TEST_ASSETS": str(assets)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # all that it has started, which would go on
        raise
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == str(project / ".cache" / "kube" / "kubeconfig")
