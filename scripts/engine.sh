#!/bin/sh
# Make sure that a container engine answers; start one where that is possible.
#
#   scripts/engine.sh          use the engine that answers, else install and start Docker
#   scripts/engine.sh stop     stop the engine, but only one that this script started; leave a swarm that it made
#
# ENGINE=swarm makes the Docker that answers a swarm of one node, where it is none yet.
#
# Exit status: 0 an engine answers, 3 none can be had here, 2 usage.
# Installing needs root and Debian's packages. Everything is skipped when it is already there.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/.cache/engine
pidfile=$cache/dockerd.pid
log=$cache/dockerd.log
swarmfile=$cache/swarm
start_seconds=${ENGINE_START_SECONDS:-60}

say() { printf 'engine: %s\n' "$*" >&2; }

none() {
    say "$*"
    exit 3
}

answers() { docker info >/dev/null 2>&1; }

ours_runs() {
    [ -s "$pidfile" ] || return 1
    pid=$(cat "$pidfile")
    # A pid can have been given to another program since, so its name is checked too.
    [ "$(cat "/proc/$pid/comm" 2>/dev/null || true)" = dockerd ]
}

# The smallest packet size on the way out. Docker's bridge assumes 1500, and behind a narrower
# link (a VPN, a nested machine) large answers from a package index then never arrive.
outer_mtu() {
    dev=$(ip -o route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
    [ -n "$dev" ] && cat "/sys/class/net/$dev/mtu" 2>/dev/null || echo 1500
}

install_docker() {
    command -v apt-get >/dev/null 2>&1 ||
        none "no Docker here, and without apt-get this script can't install it: install Docker yourself and run this again"
    say "installing Docker from Debian's packages (about half a minute)"
    export DEBIAN_FRONTEND=noninteractive
    mkdir -p "$cache"
    # The package may try to start the service, which fails without systemd: what counts is
    # whether the program is there afterwards.
    apt() { apt-get update && apt-get install -y --no-install-recommends "$@"; }
    # One of these at a time; without the lock's file for what a package may leave running.
    { flock 9 && apt docker.io iptables 9<&-; } >"$cache/apt.log" 2>&1 9</var/lib/dpkg || true
    # From trixie on, the command line client is a package of its own.
    command -v docker >/dev/null 2>&1 ||
        apt-get install -y --no-install-recommends docker-cli >>"$cache/apt.log" 2>&1 || true
    if ! command -v dockerd >/dev/null 2>&1 || ! command -v docker >/dev/null 2>&1; then
        tail -n 5 "$cache/apt.log" >&2 || true
        none "Docker could not be installed; the end of apt's output is above, all of it in .cache/engine/apt.log"
    fi
}

start_docker() {
    mkdir -p "$cache"
    if [ -d /run/systemd/system ] && systemctl start docker >/dev/null 2>&1; then
        say "starting the docker service"
    elif ours_runs; then
        say "the Docker daemon started earlier is there but does not answer yet"
    else
        say "starting the Docker daemon in the background (log: .cache/engine/dockerd.log)"
        # setsid takes it out of make's process group, so that Ctrl-C there does not end it.
        setsid dockerd --mtu "$(outer_mtu)" >"$log" 2>&1 </dev/null &
        echo $! >"$pidfile"
    fi
    waited=0
    until answers; do
        # First of all the new process needs a moment to become dockerd.
        sleep 1
        waited=$((waited + 1))
        if [ -s "$pidfile" ] && ! ours_runs && [ ! -d /run/systemd/system ]; then
            grep -v level=info "$log" | tail -n 4 >&2 || true
            none "the Docker daemon stopped at once; its last words are above. Often the kernel or this container lacks a permission that Docker needs"
        fi
        [ "$waited" -lt "$start_seconds" ] ||
            none "the Docker daemon does not answer after $start_seconds seconds; see .cache/engine/dockerd.log"
    done
}

up() {
    case ${ENGINE:-docker} in
    docker | system-user | swarm) ;;  # a swarm is a Docker that was told so
    kube | podman) exec "$root/scripts/$ENGINE.sh" ;;
    local)
        say "ENGINE=local runs servers as local processes and needs no engine"
        return
        ;;
    *) none "there is no ENGINE=$ENGINE: docker, system-user, swarm, podman, kube or local" ;;
    esac
    if command -v docker >/dev/null 2>&1 && answers; then
        say "using the Docker that answers ($(docker info --format '{{.ServerVersion}}' 2>/dev/null))"
        swarm
        return
    fi
    # Someone who names an engine means that one: another started beside it would surprise.
    [ -z "${DOCKER_HOST:-}" ] ||
        none "DOCKER_HOST is set but the engine it names does not answer: start that one, or unset DOCKER_HOST"
    [ "$(id -u)" -eq 0 ] ||
        none "no Docker answers, and starting one needs root: start it yourself, or make sure that you may use its socket"
    if ! command -v dockerd >/dev/null 2>&1 || ! command -v docker >/dev/null 2>&1; then
        install_docker
    fi
    answers || start_docker
    say "Docker $(docker info --format '{{.ServerVersion}}' 2>/dev/null) answers"
    swarm
}

of_swarm() { docker info --format "{{.Swarm.$1}}" 2>/dev/null; }

# What is remembered is the swarm's identity, so that none is left that somebody else has made since.
swarm() {
    [ "${ENGINE:-docker}" = swarm ] || return 0
    case $(of_swarm LocalNodeState) in
    active)
        [ "$(of_swarm ControlAvailable)" = true ] ||
            none "this Docker is a node of a swarm, but no manager of it: use a manager (DOCKER_HOST)"
        say "using the swarm that is there"
        ;;
    inactive)
        say "making this Docker a swarm of one node"
        docker swarm init --advertise-addr 127.0.0.1 >/dev/null || none "docker swarm init failed"
        mkdir -p "$cache"
        of_swarm Cluster.ID >"$swarmfile"
        ;;
    *) none "this Docker's swarm is in trouble ($(of_swarm LocalNodeState)): docker info says more" ;;
    esac
}

leave_swarm() {
    [ -s "$swarmfile" ] && answers || return 0
    if [ "$(of_swarm Cluster.ID)" = "$(cat "$swarmfile")" ]; then
        say "leaving the swarm"
        docker swarm leave --force >/dev/null
    fi
    rm -f "$swarmfile"
}

stop() {
    leave_swarm
    if ! ours_runs; then
        say "no engine runs that this script started"
        return
    fi
    pid=$(cat "$pidfile")
    say "stopping the Docker daemon"
    kill "$pid"
    waited=0
    while ours_runs && [ "$waited" -lt 30 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    ours_runs && none "the Docker daemon (process $pid) has not stopped after 30 seconds"
    rm -f "$pidfile"
}

case ${1:-up} in
up) up ;;
stop) stop ;;
*)
    say "usage: scripts/engine.sh [up|stop]"
    exit 2
    ;;
esac
