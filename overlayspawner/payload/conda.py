"""``conda install`` in a terminal explains itself: what it changes in the image vanishes with the container.

The explanation is a script of the shell: conda's users wait long enough. conda itself runs as always, and who
calls it by its path, or with ``CONDA_EXE``, sees nothing of this.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlayspawner.payload import files
from overlayspawner.payload.overlay import shell_quote
from overlayspawner.payload.runtime import CONDA, CONDA_NOTE

if TYPE_CHECKING:
    from overlayspawner.payload.context import Context

_NOTE = """#!/bin/sh
# conda-note TOOL ARGUMENTS...: made by overlayspawner
root=ROOT
tool=$1
shift
verb=
last=
elsewhere=
[ "${CONDA_PREFIX:-$root}" = "$root" ] || elsewhere=1
for word in "$@"; do
    case $last in
    -n | --name) case $word in base | root) elsewhere= ;; *) elsewhere=1 ;; esac ;;
    -p | --prefix) [ "$word" = "$root" ] || elsewhere=1 ;;
    *) case $word in
        -h | --help | -d | --dry-run) exit 0 ;;
        -nbase | -nroot | --name=base | --name=root) elsewhere= ;;
        -n?* | -p?* | --name=* | --prefix=*) elsewhere=1 ;;
        -*) ;;
        *) verb=${verb:-$word} ;;
        esac ;;
    esac
    last=$word
done
[ -z "$elsewhere" ] || exit 0
case $verb in install | remove | uninstall | update | upgrade) ;; *) exit 0 ;; esac
cat >&2 <<END
overlay: $tool $verb changes the image's own packages in this container; gone when the container is.
overlay: To keep a package: overlay install NAME, or pip. To remove one of yours: overlay uninstall NAME.
overlay: What only conda has can be in your home: $tool create -p ~/envs/NAME PACKAGE
END
"""


def write_conda(context: Context) -> None:
    """Write wrappers that explain what conda changes here, and hand everything on; only for what there is."""
    here = context.runtime
    folders = [os.path.dirname(context.base.executable), *os.environ.get("PATH", "").split(os.pathsep)]
    for name in CONDA:
        found = [os.path.join(f, name) for f in folders if os.path.isabs(f) and not f.startswith(here)]
        path = next((p for p in found if os.path.isfile(p) and os.access(p, os.X_OK)), "")
        if not path:
            continue
        note = os.path.join(here, CONDA_NOTE)
        root = os.path.dirname(os.path.dirname(path))
        files.write_atomic(note, _NOTE.replace("ROOT", shell_quote(root)), 0o755, sync=False)
        text = f'#!/bin/sh\n{shell_quote(note)} {name} "$@"\nexec {shell_quote(path)} "$@"\n'
        files.write_atomic(os.path.join(here, "wrappers", name), text, 0o755, sync=False)
