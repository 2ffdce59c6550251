#!/bin/bash
# The first program after tini: prepares the user when started as root, then runs the command.
#
# The behaviour follows what the users of docker-stacks know: NB_USER, NB_UID, NB_GID, CHOWN_HOME,
# CHOWN_HOME_OPTS and CHOWN_EXTRA count as root only; hooks are in start-notebook.d (before the user is
# prepared) and before-notebook.d (after), sourced when they end in .sh, run when executable.
set -e

log() { [[ -n "${JUPYTER_DOCKER_STACKS_QUIET:-}" ]] || printf 'start.sh: %s\n' "$*" >&2; }

run_hooks() {
    local hook
    [[ -d "$1" ]] || return 0
    for hook in "$1"/*; do
        if [[ "$hook" == *.sh && -r "$hook" ]]; then
            log "sourcing $hook"
            # shellcheck disable=SC1090
            source "$hook" || log "$hook failed"
        elif [[ -f "$hook" && -x "$hook" ]]; then
            log "running $hook"
            "$hook" || log "$hook failed"
        fi
    done
}

chown_if_asked() {
    case "${1:-}" in 1 | yes | true) ;; *) return 0 ;; esac
    log "giving $3 to $NB_UID:$NB_GID"
    # shellcheck disable=SC2086
    chown $2 "$NB_UID:$NB_GID" "$3"
}

[[ $# -gt 0 ]] || set -- bash

NB_USER=${NB_USER:-jovyan}
NB_UID=${NB_UID:-1000}
NB_GID=${NB_GID:-100}

run_hooks /usr/local/bin/start-notebook.d

if [[ $(id -u) -ne 0 ]]; then
    if [[ "$NB_USER" != jovyan || "$NB_UID" != "$(id -u)" || "$NB_GID" != "$(id -g)" ]]; then
        log "WARNING: not started as root, so NB_USER, NB_UID and NB_GID change nothing"
    fi
    if ! getent passwd "$(id -u)" >/dev/null && [[ -w /etc/passwd ]]; then
        # Many programs fail for a user without a name.
        log "adding an entry for user $(id -u) to /etc/passwd"
        echo "nayvoj:x:$(id -u):$(id -g)::${HOME:-/home/jovyan}:/bin/bash" >>/etc/passwd
    fi
    [[ -w "$HOME" ]] || log "WARNING: $HOME is not writable"
    run_hooks /usr/local/bin/before-notebook.d
    log "running as $(id -u):$(id -g): $*"
    exec "$@"
fi

if [[ "$NB_UID" -eq 0 ]]; then
    NB_USER=root
fi

if [[ "$NB_USER" != root && ("$(id -u "$NB_USER" 2>/dev/null)" != "$NB_UID" || "$(id -g "$NB_USER" 2>/dev/null)" != "$NB_GID") ]]; then
    log "making user $NB_USER ($NB_UID:$NB_GID)"
    getent group "$NB_GID" >/dev/null || groupadd --force --gid "$NB_GID" --non-unique "${NB_GROUP:-$NB_USER}"
    for old in jovyan "$NB_USER"; do
        if getent passwd "$old" >/dev/null; then userdel --force "$old" 2>/dev/null; fi
    done
    useradd --no-log-init --no-create-home --no-user-group --home-dir "/home/$NB_USER" --shell /bin/bash \
        --uid "$NB_UID" --non-unique --gid "$NB_GID" --groups 100 "$NB_USER"
fi

if [[ "$NB_USER" == root ]]; then
    export HOME=/root
else
    HOME=/home/$NB_USER
    if [[ "$NB_USER" != jovyan && ! -e "$HOME" ]]; then
        log "copying /home/jovyan to $HOME"
        mkdir "$HOME"
        cp -a /home/jovyan/. "$HOME/"
        chown "$NB_UID:$NB_GID" "$HOME"
    fi
    if [[ "$PWD/" == /home/jovyan/* && "$NB_USER" != jovyan ]]; then
        rest=${PWD#/home/jovyan}
        cd "$HOME$rest" 2>/dev/null || cd "$HOME"
    fi
fi

chown_if_asked "${CHOWN_HOME:-}" "${CHOWN_HOME_OPTS:-}" "$HOME"
if [[ -n "${CHOWN_EXTRA:-}" ]]; then
    for extra in ${CHOWN_EXTRA//,/ }; do
        chown_if_asked yes "${CHOWN_EXTRA_OPTS:-}" "$extra"
    done
fi

export HOME NB_USER NB_UID NB_GID XDG_CACHE_HOME="$HOME/.cache"
run_hooks /usr/local/bin/before-notebook.d

log "running as $NB_USER ($NB_UID:$NB_GID): $*"
if [[ "$NB_USER" == root ]]; then
    exec "$@"
fi
# PATH is said again because it has to survive whatever the switch of user does to it.
exec setpriv --reuid "$NB_UID" --regid "$NB_GID" --init-groups \
    env "PATH=$PATH" "HOME=$HOME" "USER=$NB_USER" "LOGNAME=$NB_USER" "$@"
