#!/bin/sh
# The panel in JupyterLab: src/, style/ and schema/ make overlayspawner/labextension.
#
#   scripts/labextension.sh            build it, unless what is there was made of the same sources
#   scripts/labextension.sh check      lint and unit tests
set -eu

cd "$(dirname "$0")/.."
what=${1:-build}

say() { printf 'labextension: %s\n' "$*" >&2; }

scripts/tools.sh nodejs

key=$(sha256sum package-lock.json | cut -c 1-16)
if [ ! -e "node_modules/.made-$key" ]; then
    say "installing the packages that it is built with (a minute or two)"
    npm ci --no-audit --no-fund --loglevel=error >&2
    touch "node_modules/.made-$key"
fi

if [ "$what" = check ]; then
    npm run --silent lint >&2
    exec npm run --silent test >&2
fi

out=overlayspawner/labextension
sources=$(find src style schema -type f ! -path 'src/tests/*' | LC_ALL=C sort)
# shellcheck disable=SC2086 # our own names hold no blanks
key=$({ cat package.json package-lock.json tsconfig.json scripts/labextension.sh $sources; } | sha256sum | cut -c 1-16)
[ "$(cat build/.labextension 2>/dev/null)" != "$key" ] || [ ! -e "$out/package.json" ] || exit 0

say "building $out"
rm -rf build/lib build/labcore "$out"
mkdir -p build/labcore
# The builder asks which packages JupyterLab has, and takes a version of it for the answer. All that we import is
# JupyterLab's, in the range that package.json names: the panel then fits every JupyterLab 4.
node -e '
    const { dependencies } = require("./package.json");
    const jupyterlab = { singletonPackages: Object.keys(dependencies) };
    require("fs").writeFileSync("build/labcore/package.json", JSON.stringify({ dependencies, jupyterlab }));
'
npm run --silent build >build/labextension.log 2>&1 || {
    cat build/labextension.log >&2
    say "it could not be built"
    exit 1
}
printf '%s\n' "$key" >build/.labextension
