#!/bin/sh
# Make a development environment, or bring one up to date.
#
#   scripts/env.sh DIR [REQUIREMENT ...]     e.g. scripts/env.sh .venv-hub5 'jupyterhub>=5,<6'
#
# DIR gets this project, editable, with its test tools, and the requirements. A stamp keyed on
# pyproject.toml, the requirements and Python's version makes the second call do nothing.
set -eu

cd "$(dirname "$0")/.."
dir=$1
shift
python=${PYTHON:-python3}

say() { printf 'env: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "$python is not there: install Python 3.10 or later"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "Python 3.10 or later is needed, and $python is $("$python" -V 2>&1)"

key=$({ cat pyproject.toml scripts/env.sh; "$python" -V; printf '%s\n' "$@"; } | sha256sum | cut -c 1-16)
stamp=$dir/.made-$key
[ ! -e "$stamp" ] || exit 0

if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    # Debian keeps this part of the standard library in a package of its own.
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1 ||
        fail "$python has no venv module: install Debian's package python3-venv"
    say "installing python3-venv"
    apt() { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
    # One of these at a time; without the lock's file for what a package may leave running.
    { flock 9 && apt python3-venv 9<&-; } >/dev/null 9</var/lib/dpkg || fail "python3-venv could not be installed"
fi

# A folder whose interpreter has gone, for example after an upgrade of the system, is made anew.
"$dir/bin/python" -c 'import pip' >/dev/null 2>&1 || rm -rf "$dir"
if [ ! -d "$dir" ]; then
    say "making $dir"
    "$python" -m venv "$dir"
fi
say "installing into $dir (a minute or two the first time)"
"$dir/bin/python" -m pip install -qq --disable-pip-version-check --editable '.[test]' "$@"
rm -f "$dir"/.made-*
touch "$stamp"
