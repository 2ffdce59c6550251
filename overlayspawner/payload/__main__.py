"""Verbs of ``overlay.pyz``: ``start`` (bootstrap), ``kernel`` (kernel launcher), ``cli``.

Tiny on purpose: ``runpy`` compiles this file at each start, because a zip's ``__main__`` has no bytecode.
"""

import sys

MODULES = {"start": "bootstrap", "kernel": "kernel", "cli": "cli"}

if __name__ == "__main__":
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb not in MODULES:
        sys.exit(f"usage: overlay.pyz {'|'.join(MODULES)} ...")
    if verb == "cli" and __file__.endswith("/overlayspawner/payload/__main__.py"):
        # installed, not the zip: perhaps into ~/.local, which an isolated Python leaves out
        root = __file__[: -len("/overlayspawner/payload/__main__.py")]
        if root not in sys.path:
            sys.path.append(root)
    from importlib import import_module

    sys.exit(import_module("overlayspawner.payload." + MODULES[verb]).main(sys.argv[2:]))
