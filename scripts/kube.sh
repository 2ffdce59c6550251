#!/bin/sh
# Make sure that a Kubernetes cluster answers whose pods can run the test images. The last line on standard output
# is the path of its kubeconfig.
#
#   scripts/kube.sh          use the cluster that KUBECONFIG names, else start one
#   scripts/kube.sh stop     stop the cluster, but only one that this script started
#
# Starting one takes the scripts k8s-up.sh and k8s-down.sh, looked for in $OVERLAY_TEST_ASSETS/engines and in
# ../shared/engines beside the project: a one-node cluster on the Docker that runs, whose images its pods use.
# Exit status: 0 a cluster answers, 3 none can be had here, 2 usage.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
run=$root/.cache/kube
log=$run.log

say() { printf 'kube: %s\n' "$*" >&2; }

none() {
    say "$*"
    exit 3
}

# The directory of the scripts, or nothing.
assets() {
    for dir in "${OVERLAY_TEST_ASSETS:+$OVERLAY_TEST_ASSETS/engines}" "$root/../shared/engines"; do
        if [ -n "$dir" ] && [ -f "$dir/k8s-up.sh" ]; then
            (cd "$dir" && pwd)
            return
        fi
    done
}

up() {
    if [ -n "${KUBECONFIG:-}" ]; then
        [ -r "$KUBECONFIG" ] || none "KUBECONFIG names $KUBECONFIG, which can't be read"
        say "using the cluster of $KUBECONFIG"
        echo "$KUBECONFIG"
        return
    fi
    if [ -s "$run/kubeconfig" ] && [ -s "$run/kubelet.pid" ] && kill -0 "$(cat "$run/kubelet.pid")" 2>/dev/null; then
        say "using the cluster that runs already"
        echo "$run/kubeconfig"
        return
    fi
    dir=$(assets)
    [ -n "$dir" ] ||
        none "no Kubernetes here: set KUBECONFIG to a cluster for tests (for example one made by 'kind create" \
            "cluster', with the images of 'make images' loaded into it), or OVERLAY_TEST_ASSETS to a directory" \
            "with engines/k8s-up.sh"
    [ "$(id -u)" -eq 0 ] || none "starting a cluster needs root: set KUBECONFIG to one that runs"
    ENGINE=docker "$root/scripts/engine.sh" >&2  # not kube: that is this script
    mkdir -p "$root/.cache"
    say "starting a cluster (half a minute; log: .cache/kube.log)"
    K8S_RUN=$run K8S_LEVEL=node bash "$dir/k8s-up.sh" >"$log" 2>&1 ||
        { tail -n 5 "$log" >&2; none "the cluster did not start; the end of its log is above"; }
    say "started a cluster"
    echo "$run/kubeconfig"
}

stop() {
    dir=$(assets)
    if [ ! -d "$run" ] || [ -z "$dir" ]; then
        say "no cluster runs that this script started"
        return
    fi
    say "stopping the cluster"
    K8S_RUN=$run bash "$dir/k8s-down.sh"
}

case ${1:-up} in
up) up ;;
stop) stop ;;
*)
    say "usage: scripts/kube.sh [up|stop]"
    exit 2
    ;;
esac
