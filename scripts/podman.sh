#!/bin/sh
# Make sure that a rootful Podman answers on a socket in Docker's language, and that it has the test images. The
# last line on standard output is the socket's address, as DOCKER_HOST wants it.
#
#   scripts/podman.sh          use the service that runs, else start one with a storage of its own
#   scripts/podman.sh stop     stop the service, but only one that this script started, and remove its storage
#
# With PODMAN_HOST=unix:///... that service is used, and nothing is started. The images are taken out of Docker
# where they are built: PODMAN_IMAGES="stacks venv" says which; those that are not built yet are left out.
# Exit status: 0 Podman answers, 3 none can be had here, 2 usage.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/.cache/podman
pidfile=$cache/service.pid
socket=$cache/podman.sock
log=$cache/service.log
host=${PODMAN_HOST:-unix://$socket}

export CONTAINERS_CONF="$cache/containers.conf"

say() { printf 'podman: %s\n' "$*" >&2; }

none() {
    say "$*"
    exit 3
}

ours() { podman --root "$cache/root" --runroot "$cache/run" --network-config-dir "$cache/networks" "$@"; }

answers() { curl --silent --fail --max-time 10 --unix-socket "${host#unix://}" http://d/_ping >/dev/null 2>&1; }

ours_runs() {
    [ -s "$pidfile" ] || return 1
    pid=$(cat "$pidfile")
    # A pid can have been given to another program since, so its name is checked too.
    [ "$(cat "/proc/$pid/comm" 2>/dev/null || true)" = podman ]
}

install_podman() {
    command -v podman >/dev/null 2>&1 && command -v runc >/dev/null 2>&1 && return
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1 ||
        none "no Podman here, and this script installs it as root with apt-get only: install podman and runc yourself"
    say "installing Podman from Debian's packages (about a minute)"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends podman runc curl; } \
        >"$cache/apt.log" 2>&1 || true
    command -v podman >/dev/null 2>&1 && command -v runc >/dev/null 2>&1 && return
    tail -n 5 "$cache/apt.log" >&2 || true
    none "Podman could not be installed; the end of apt's output is above, all of it in .cache/podman/apt.log"
}

start_service() {
    # Limits that root may set here without CAP_SYS_RESOURCE; and a runtime and a way to make cgroups that work
    # without systemd and with the older layout of cgroups.
    cat >"$CONTAINERS_CONF" <<CONF
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$cache/run/libpod"
CONF
    mkdir -p "$cache/networks"
    say "starting the service in the background (log: .cache/podman/service.log)"
    # setsid takes it out of make's process group, so that Ctrl-C there does not end it. Its directory, because
    # conmon leaves a file there when a container runs out of memory.
    (
        cd "$cache"
        exec setsid podman --root "$cache/root" --runroot "$cache/run" --network-config-dir "$cache/networks" \
            system service --time=0 "unix://$socket" >"$log" 2>&1 </dev/null
    ) &
    echo $! >"$pidfile"
    waited=0
    until answers; do
        sleep 0.5
        waited=$((waited + 1))
        [ "$waited" -lt 60 ] || { tail -n 4 "$log" >&2; none "the service does not answer; its last words are above"; }
    done
}

# Put the test images in, under the names that they have in Docker.
load_images() {
    for name in ${PODMAN_IMAGES:-stacks venv py313}; do
        for tag in $(docker image ls --format '{{.Repository}}:{{.Tag}}' "overlayspawner-test/$name" 2>/dev/null); do
            case $tag in *:latest) continue ;; esac
            ours image exists "localhost/$tag" && continue
            say "taking the image $tag out of Docker"
            docker save "$tag" | ours load --quiet >/dev/null
            # Its bridge, and with it the address that a hub outside listens on, is there from the first container on.
            ours run --rm --entrypoint /bin/sh "localhost/$tag" -c : >/dev/null 2>&1 || true
        done
    done
}

up() {
    if [ -n "${PODMAN_HOST:-}" ]; then
        answers || none "PODMAN_HOST is set but no service answers there: start that one, or unset PODMAN_HOST"
        echo "$host"
        return
    fi
    [ "$(id -u)" -eq 0 ] || none "starting a rootful Podman needs root: start one, and name its socket in PODMAN_HOST"
    [ "${#socket}" -lt 100 ] || none "the path $socket is too long for a socket: use a shorter directory"
    mkdir -p "$cache"
    install_podman
    if ours_runs && answers; then
        say "using the service that runs already"
    else
        start_service
    fi
    load_images
    say "Podman $(ours version --format '{{.Client.Version}}') answers"
    echo "$host"
}

stop() {
    if [ ! -d "$cache" ]; then
        say "no Podman runs that this script started"
        return
    fi
    if ours_runs; then
        say "stopping the service, and removing its containers, images and volumes"
        ours rm --all --force --time 0 >/dev/null 2>&1 || true
        kill "$(cat "$pidfile")"
        waited=0
        while ours_runs && [ "$waited" -lt 30 ]; do
            sleep 0.5
            waited=$((waited + 1))
        done
        ours_runs && none "the service (process $(cat "$pidfile")) has not stopped after 15 seconds"
    fi
    # What is still mounted below: rm must not reach into it.
    awk -v dir="$cache/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mounted; do
        umount "$mounted" 2>/dev/null || true
    done
    rm -rf "$cache"
}

case ${1:-up} in
up) up ;;
stop) stop ;;
*)
    say "usage: scripts/podman.sh [up|stop]"
    exit 2
    ;;
esac
