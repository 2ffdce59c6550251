# The first stage of a container's start, in POSIX sh because only sh is sure to be there.
#
# Sourced, with the image's command as "$@" and OVERLAYSPAWNER_PAYLOAD naming the payload's directory. It
# finds the Python that the single-user server runs on, has it prepare the overlay, and sets the few
# variables that it prints. It never exits and never changes "$@": whoever sourced it runs the command, come
# what may. Lines on standard error that begin with "overlayspawner:" are read by the hub, as hints.

# Give up: say why, and leave nothing of ours behind in the server's environment.
_ovl_plain() {
    printf 'overlayspawner: [%s] %s Starting without the overlay.\n' "$1" "$2" >&2
    unset OVERLAYSPAWNER_SPEC OVERLAYSPAWNER_SPEC_FILE
}

# The interpreter in a script's first line, or nothing. Knows plain paths, env (with -S, options and
# assignments) and the two-line form that pip and conda write where a path is too long for a first line.
_ovl_interpreter() {
    _ovl_line=
    _ovl_second=
    { IFS= read -r _ovl_line && IFS= read -r _ovl_second; } <"$1" 2>/dev/null
    case $_ovl_line in
    '#!'*) ;;
    *) return 1 ;;
    esac
    case $_ovl_second in
    "'''exec' "*)
        _ovl_line=${_ovl_second#"'''exec' "}
        case $_ovl_line in
        '"'*) _ovl_line=${_ovl_line#'"'} && printf '%s\n' "${_ovl_line%%'"'*}" ;;
        *) printf '%s\n' "${_ovl_line%% *}" ;;
        esac
        return 0
        ;;
    esac
    _ovl_line=${_ovl_line#'#!'}
    # Words are split on purpose; a subshell keeps "$@" and globbing as they are.
    (
        set -f
        # shellcheck disable=SC2086
        set -- $_ovl_line
        case ${1##*/} in
        env)
            shift
            while [ $# -gt 0 ]; do
                case $1 in
                -* | *=*) shift ;;
                *) break ;;
                esac
            done
            [ $# -gt 0 ] || exit 1
            ;;
        esac
        case ${1##*/} in
        python* | pypy*) command -v "$1" ;;
        *) exit 1 ;;
        esac
    )
}

# The Python of the single-user server: of the entry point that the command names, else of the one on PATH,
# else of whatever Python program the command is.
_ovl_find() {
    for _ovl_word in "$@"; do
        case ${_ovl_word##*/} in
        jupyterhub-singleuser | jupyter-labhub)
            _ovl_path=$(command -v "$_ovl_word" 2>/dev/null) && _ovl_interpreter "$_ovl_path" && return 0
            ;;
        esac
    done
    for _ovl_word in jupyterhub-singleuser jupyter-labhub; do
        _ovl_path=$(command -v "$_ovl_word" 2>/dev/null) && _ovl_interpreter "$_ovl_path" && return 0
    done
    [ $# -gt 0 ] && _ovl_path=$(command -v "$1" 2>/dev/null) || return 1
    case ${1##*/} in
    python* | pypy*) printf '%s\n' "$_ovl_path" ;;
    *) _ovl_interpreter "$_ovl_path" ;;
    esac
}

_ovl_start() {
    if [ ! -r "$OVERLAYSPAWNER_PAYLOAD/overlay.pyz" ]; then
        _ovl_plain payload-missing "The payload is incomplete."
        return 0
    fi
    if ! _ovl_python=$(_ovl_find "$@"); then
        _ovl_plain no-python "No Python of a Jupyter server was found in this image."
        return 0
    fi
    # Only shell assignments are evaluated, and only between the two lines that our own program prints.
    # Not `python overlay.pyz start`: runpy alone would cost a quarter of the whole. start.bin holds the modules
    # of the start, compiled for the versions of Python that the hub has bytecode of, and as sources for others;
    # only the part that this Python needs is read. Whatever is wrong with it, the zip has them too. A damaged
    # zip must not end in a pip-installed overlayspawner of the image.
    _ovl_out=$("$_ovl_python" -I -c 'import sys, os
root = sys.argv[1] + "/"
pyz = root + "overlay.pyz"
def load():
    import marshal, zlib
    from _frozen_importlib_external import MAGIC_NUMBER
    with open(root + "start.bin", "rb") as f:
        size, parts = marshal.load(f)
        at, length = parts.get(MAGIC_NUMBER) or parts[b""]
        f.seek(at, 1)
        modules = marshal.loads(zlib.decompress(f.read(length)))
    if os.stat(pyz).st_size != size:
        sys.exit("the payload is damaged")
    for name, path, package, code in modules:
        module = sys.modules[name] = type(sys)(name)
        module.__file__ = pyz + "/" + path
        if package:
            module.__path__ = [module.__file__[:-12]]
        module.__package__ = name if package else name.rpartition(".")[0]
        if isinstance(code, str):
            code = compile(code, module.__file__, "exec", 0, True)
        exec(code, module.__dict__)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
try:
    load()
except Exception:
    for name in [n for n in sys.modules if n.partition(".")[0] == "overlayspawner"]:
        del sys.modules[name]
    sys.path.insert(0, pyz)
import overlayspawner
overlayspawner.__file__.startswith(pyz) or sys.exit("the payload is damaged")
from overlayspawner.payload.bootstrap import main
main(sys.argv[2:])' "$OVERLAYSPAWNER_PAYLOAD" start) || _ovl_out=
    case $_ovl_out in
    *'# overlayspawner 1
'*'# overlayspawner end'*)
        _ovl_out=${_ovl_out#*'# overlayspawner 1
'}
        eval "${_ovl_out%%'# overlayspawner end'*}"
        ;;
    *) _ovl_plain bootstrap-failed "Preparing the overlay failed." ;;
    esac
}

if [ -n "${OVERLAYSPAWNER_SPEC:-}${OVERLAYSPAWNER_SPEC_FILE:-}" ]; then
    _ovl_start "$@"
fi
unset _ovl_line _ovl_second _ovl_word _ovl_path _ovl_python _ovl_out
