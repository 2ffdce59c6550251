"""The page of reasons why servers don't start, made from the tables of the hub's modules."""

from __future__ import annotations

from overlayspawner.hub import engine_reasons, kube_reasons, system_user

PAGE = """# Why a server did not start

The spawn page tells what happened, and what can be done. The code is in the hub's log, in brackets behind the
name of the server; for what is no failure of the hub it is also the `reason` of JupyterHub's metrics.

Other users' servers go on, and what was begun is removed. What counts brings the hub nearer to
`consecutive_failure_limit`, at which JupyterHub stops itself. *By administrators* means that it counts unless
the user chose the image. A start ends a moment before `start_timeout`, because the hub could say no reason.

## Docker, Podman, Swarm

| code | what happened | what to do | counts |
|---|---|---|---|
{engine}

A server whose engine does not answer counts as running: it may well be, and the hub would forget it. What
could not be stopped or removed is when the engine answers again.

With `OverlaySystemUserSpawner`, besides:

| code | what happened | what to do | counts |
|---|---|---|---|
{system_user}

## Kubernetes

| code | what happened | what to do |
|---|---|---|
{kube}
"""


def page() -> str:
    """Return the page."""
    engine = [
        f"| `{code}` | {text} | {engine_reasons.HINTS.get(code, '')} | {_counts(code)} |"
        for code, text in engine_reasons.CODES.items()
    ]
    kube = [
        f"| `{code}` | {text} | {kube_reasons._HINTS.get(code, '')} |"
        for code, text in kube_reasons.CODES.items()
    ]
    system = [
        f"| `{code}` | {text} | {system_user.HINTS[code]} | no |" for code, text in system_user.CODES.items()
    ]
    return PAGE.format(engine="\n".join(engine), system_user="\n".join(system), kube="\n".join(kube))


def _counts(code: str) -> str:
    reason = engine_reasons.Reason(code)
    if not reason.counts(chosen=False):
        return "no"
    return "yes" if reason.counts(chosen=True) else "by administrators"
