"""Verbs of ``overlay.pyz``: ``start`` (bootstrap), ``kernel`` (kernel launcher), ``cli``, ``wrap``.

Anything else is a command of ``cli``: ``python overlay.pyz list`` is what a container without a hub has.

Tiny on purpose: ``runpy`` compiles this file at each start, because a zip's ``__main__`` has no bytecode.
"""

import sys

MODULES = {"start": "bootstrap", "kernel": "kernel", "cli": "cli", "wrap": "wrapper"}

if __name__ == "__main__":
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb not in MODULES:
        verb = "cli"
        sys.argv.insert(1, verb)
        if not sys.flags.isolated:  # as our own commands are called: the user's modules are not ours
            from os import execv

            execv(sys.executable, [sys.executable, "-I", *sys.argv])  # noqa: S606
    if verb == "cli":
        import _signal  # the module itself: `signal` takes its time, and Ctrl-C may come now

        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # no traceback of imports
    root = ""
    if __file__.endswith("/overlayspawner/payload/__main__.py"):
        # installed, not the zip: perhaps into ~/.local, or into an image that an isolated env does not see
        root = __file__[: -len("/overlayspawner/payload/__main__.py")]
        if root in sys.path:
            root = ""
        else:
            sys.path.append(root)
    from importlib import import_module

    module = import_module("overlayspawner.payload." + MODULES[verb])
    if root and verb == "kernel":
        sys.path.remove(root)  # a package finds its own modules; notebooks shall not find others there
    sys.exit(module.main(sys.argv[2:]))
