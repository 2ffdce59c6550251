#!/bin/sh
# Tools from outside Python, each left alone when it is there.
#
#   scripts/tools.sh proxy       npm's configurable-http-proxy, in .cache/node
#   scripts/tools.sh nodejs      Node and npm
#   scripts/tools.sh chromium    a browser for the tests of the pages
#   scripts/tools.sh btrfs       a file system with quotas, for root: who else can't mount one
#   scripts/tools.sh compiler    gcc, where root may install it
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
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
        >/dev/null || fail "$* could not be installed"
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

[ $# -gt 0 ] || fail "usage: scripts/tools.sh proxy|nodejs|chromium|btrfs|compiler ..."
for tool in "$@"; do
    case $tool in
    proxy | nodejs | chromium | btrfs | compiler) "get_$tool" ;;
    *) fail "there is no tool '$tool' here: proxy, nodejs, chromium, btrfs, compiler" ;;
    esac
done
