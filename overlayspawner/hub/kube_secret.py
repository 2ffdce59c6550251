"""Prints the manifest of a Secret with our code for servers, for administrators who make it themselves.

``python -m overlayspawner.hub.kube_secret NAME | kubectl create -n NAMESPACE -f -``; see
``overlay_secret_name``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from overlayspawner.hub import payload_zip
from overlayspawner.hub.kube_manifests import secret_manifest


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the manifest as JSON; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m overlayspawner.hub.kube_secret", description=__doc__)
    parser.add_argument("name", help="name of the Secret")
    parser.add_argument("--namespace", default="", help="left out of the manifest when not given")
    given = parser.parse_args(arguments)
    manifest = secret_manifest(payload_zip.build(), name=given.name, namespace=given.namespace)
    print(json.dumps(manifest, indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
