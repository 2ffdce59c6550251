"""OverlayKubeSpawner where no cluster is needed."""

from __future__ import annotations

import subprocess
import sys


def test_it_needs_nothing_of_docker() -> None:
    """The hub's image of zero-to-jupyterhub has KubeSpawner, and no DockerSpawner."""
    code = (
        "import sys; sys.modules.update(docker=None, dockerspawner=None)\n"
        "from overlayspawner import OverlayKubeSpawner; print(OverlayKubeSpawner.__mro__[2].__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "KubeSpawner\n", done.stderr
