"""Give a Python environment what images have besides packages from wheels. Run by its interpreter, as root.

Beside `ipykernel`: a `.pth` with a directory, an editable project in the new way and one in the old, one part
of a namespace package, and a distribution without RECORD, as conda leaves them.
"""

from __future__ import annotations

import json
import os
import sys

ROOT = "/opt/layout"


def write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a" if path.endswith("easy-install.pth") else "w", encoding="utf-8") as stream:
        stream.write(text)


def metadata(name: str, version: str) -> str:
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def main() -> None:
    import ipykernel

    site = os.path.dirname(os.path.dirname(ipykernel.__file__))

    write(f"{ROOT}/on-path/from_pth.py", "WHERE = 'pth'\n")
    write(f"{site}/layout.pth", f"{ROOT}/on-path\n")

    write(f"{ROOT}/editable/base_editable.py", "WHERE = 'editable'\n")
    write(f"{site}/__editable__.base_editable-1.0.pth", f"{ROOT}/editable\n")
    info = f"{site}/base_editable-1.0.dist-info"
    write(f"{info}/METADATA", metadata("base-editable", "1.0"))
    write(f"{info}/INSTALLER", "pip\n")
    write(
        f"{info}/direct_url.json",
        json.dumps({"url": f"file://{ROOT}/editable", "dir_info": {"editable": True}}),
    )
    names = ("METADATA", "INSTALLER", "direct_url.json", "RECORD")
    rows = [f"{os.path.basename(info)}/{name},,\n" for name in names]
    write(f"{info}/RECORD", "__editable__.base_editable-1.0.pth,,\n" + "".join(rows))

    write(f"{ROOT}/develop/base_develop.py", "WHERE = 'develop'\n")
    write(f"{ROOT}/develop/base_develop.egg-info/PKG-INFO", metadata("base-develop", "1.0"))
    write(f"{site}/base-develop.egg-link", f"{ROOT}/develop\n.\n")
    write(f"{site}/easy-install.pth", f"{ROOT}/develop\n")

    write(f"{site}/tinyns/base.py", "WHERE = 'base'\n")

    write(f"{site}/tinyleaf/__init__.py", "__version__ = '1.1'\n")
    write(f"{site}/tinyleaf-1.1.dist-info/METADATA", metadata("tinyleaf", "1.1"))
    write(f"{site}/tinyleaf-1.1.dist-info/INSTALLER", "conda\n")

    for folder, _, files in os.walk(ROOT):
        os.chmod(folder, 0o755)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o644)


if __name__ == "__main__":
    sys.exit(main())
