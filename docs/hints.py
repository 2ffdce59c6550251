"""What to do about each code: the half of the reference page on codes that is not in the code itself.

``docs/generate.py`` joins this with ``contract.CODES`` and refuses to work when one has a code that the other
lacks.
"""

from __future__ import annotations

SECTIONS = {
    "Notices of a start": (
        "payload-missing",
        "no-python",
        "no-shell",
        "no-command",
        "bad-spec",
        "deadline",
        "bootstrap-failed",
        "no-runtime-dir",
        "home-unknown",
        "home-unwritable",
        "home-full",
        "not-persistent",
        "root-start",
        "env-broken",
        "kernel-rescued",
        "kernel-base",
        "kernel-not-replaced",
        "labextension-left-out",
        "old-server",
        "user-site-hidden",
        "old-container",
        "safe-mode",
        "reset-done",
        "restoring",
        "restore-waiting",
        "restore-partial",
        "base-changed",
        "home-moved",
        "damaged-file",
        "no-locks",
        "no-kernel",
        "packages-missing",
        "packages-partial",
        "requirements-pending",
        "adopted",
        "against-policy",
        "user-site-packages",
        "venvs-found",
    ),
    "Errors of requests": (
        "bad-request",
        "bad-requirement",
        "option-not-allowed",
        "unknown-action",
        "too-large",
        "not-found",
        "method-not-allowed",
        "not-available",
        "not-authenticated",
        "not-authorized",
        "forbidden",
    ),
    "Errors of changes": (
        "busy",
        "no-such-package",
        "no-matching-version",
        "conflict",
        "would-break",
        "plan-changed",
        "policy",
        "size-limit",
        "no-upload-times",
        "cutoff-unsupported",
        "build-failed",
        "index-unreachable",
        "index-auth",
        "bad-package",
        "disk-full",
        "read-only",
        "cannot-undo",
        "not-restored",
        "not-installed",
        "in-base",
        "installer-missing",
        "installer-failed",
        "timeout",
        "cancelled",
        "interrupted",
        "no-overlay",
        "internal",
    ),
}
"""Heading to its codes, in the order in which they are shown."""

INTRODUCTIONS = {
    "Notices of a start": (
        "The server runs. A notice says what is missing. Notices are in `overlay status`, in `GET status` "
        "and, as lines that begin with `overlayspawner:`, in the output of the server or of the kernel."
    ),
    "Errors of requests": (
        "The request was refused before anything began. On the command line these end with exit status 2 "
        "where the command itself was wrong, else 1."
    ),
    "Errors of changes": (
        "The change was not made: packages and `requirements.txt` are what they were before. On the command "
        "line these end with exit status 1."
    ),
}

HINTS = {
    "payload-missing": (
        "Start the server once more. The volume with our code was empty, most likely because somebody ran "
        "`docker volume prune`; the hub fills it again at the next start. If it comes back, look for "
        "`Filling the volume` in the hub's log."
    ),
    "no-python": (
        "Use an image in which `jupyterhub-singleuser` is on `PATH` or is named by `Spawner.cmd`, and is a "
        "Python script."
    ),
    "no-shell": "Use an image with `/bin/sh`. Without one, servers start as with the stock spawner.",
    "no-command": "Set `Spawner.cmd`, for example to `jupyterhub-singleuser`.",
    "bad-spec": (
        "Correct the setting that the message names in the hub's configuration. A spec that is too large has "
        "long lists in it: keep those in a package index."
    ),
    "deadline": (
        "Restart the server when the storage answers again. For storage that is slow but sound, raise "
        "`overlay_start_deadline`."
    ),
    "bootstrap-failed": (
        "Start the server once more: the hub looks at the payload before that, and mends it. If it comes "
        "back, read the line in the server's output and report it."
    ),
    "no-runtime-dir": (
        "Give the container a writable `/tmp` (with a read-only root: `tmpfs` for `/tmp`). The server needs "
        "a private directory outside the home for generated files."
    ),
    "home-unknown": "Set `HOME` in the image, or in `Spawner.environment`.",
    "home-unwritable": (
        "Look at owner and mode of the home. On a bind mount it often belongs to root: create it for the "
        "user, or use a named volume, which takes over the owner from the image."
    ),
    "home-full": "Delete files (a terminal works), then restart the server.",
    "not-persistent": (
        "Mount a volume at the home, or let `home_volume` do so. See "
        "[Where overlays live](../how-to/storage.md)."
    ),
    "reset-done": (
        "Nothing to do. What you had is in the folder that the notice names; `overlay undo` brings it back."
    ),
    "restoring": (
        "Wait until it is done; `overlay status` says how far it is. Then run a cell that failed once more."
    ),
    "restore-waiting": (
        "Run `overlay restore`, or restore from JupyterLab. Your administrator has chosen that this does not "
        "happen by itself, or the package index could not be reached."
    ),
    "restore-partial": (
        "`overlay status` lists each package with its reason. Ask for another version, or remove it from "
        "`requirements.txt`."
    ),
    "base-changed": (
        "If the notice names packages that no longer fit together, run `overlay restore`; else there is "
        "nothing to do."
    ),
    "home-moved": "Run `overlay doctor --fix`: it corrects the paths inside the environment.",
    "damaged-file": (
        "Nothing to do: the file was moved aside and a new one was made. The notice names both."
    ),
    "no-locks": (
        "Change packages from one server at a time. Ask your administrator for storage with locks "
        "(NFS 4, or NFS 3 with its lock service)."
    ),
    "no-kernel": "Install `ipykernel` into it: `overlay install ipykernel`.",
    "packages-missing": "Run `overlay doctor --fix`: it installs them again.",
    "packages-partial": "Run `overlay doctor --fix`: it installs them again.",
    "requirements-pending": "Run `overlay sync` to do what the file asks for.",
    "adopted": "Nothing to do: they are in `requirements.txt` now, and survive a change of the image.",
    "against-policy": (
        "`overlay uninstall` removes them. They came by another tool than `overlay`, or before the rule did. "
        "They are left alone, but not installed again for another image."
    ),
    "user-site-packages": (
        "They go on working. `overlay import user-site` adds them to the overlay, where they survive a "
        "change of the image."
    ),
    "venvs-found": "They go on working. `overlay import PATH` adds what is in one to the overlay.",
    "cannot-undo": "`overlay history` lists the changes.",
    "not-restored": (
        "Read the reason of each package; correct `requirements.txt`, then run `overlay restore`."
    ),
    "root-start": (
        "As a notice: nothing to do; the overlay is opened a moment later, as the final user. As an error of "
        "the command line: run `overlay` as the user to whom the home belongs. A server that stays root in "
        "another user's home has no overlay: use an image that becomes `NB_UID`, or switch `run_as_root` off."
    ),
    "env-broken": (
        "Nothing to do: the server mends it when it is up, and says so. If it can't, run "
        "`overlay doctor --fix`."
    ),
    "kernel-rescued": (
        "Uninstall or upgrade the package that the message names (`overlay uninstall NAME`; for a file under "
        "`~/.local` use `python3 -m pip uninstall` with that Python), then restart the kernel."
    ),
    "kernel-base": (
        "Remove what the message names: often a `.pth` file, which Python runs at each start. Then restart "
        "the kernel: the overlay is tried again."
    ),
    "kernel-not-replaced": (
        "Nothing, if the server is meant to choose its kernels in its own way (a gateway, a list of allowed "
        "kernels, another kernel spec manager). A terminal still has the overlay's `python`."
    ),
    "labextension-left-out": (
        "What the message says. The package works in notebooks as far as it can without pages. See "
        "[Widgets and extensions](../how-to/widgets.md)."
    ),
    "old-server": (
        "Use an image with Jupyter Server 2 for the REST interface. Kernels, `%pip` and the command line "
        "work without it."
    ),
    "user-site-hidden": (
        "Install the extension into the image, or set `overlay_user_site` to `server` and accept that a "
        "broken package in `~/.local` can stop the server."
    ),
    "old-container": (
        "The container was kept because something would be lost with it; the hub's log says what. Save that, "
        "delete the container (`docker rm`), start again."
    ),
    "safe-mode": "Repair what is wrong, then restart the server in the normal way.",
    "bad-request": "Correct the request as the message says. See the [REST interface](rest.md).",
    "bad-requirement": (
        "Write a requirement as pip takes it: `humanize`, `humanize>=4`, `humanize[extra]==4.9`, "
        "`humanize @ https://…`. Replace credentials in a URL by variables: `https://${NAME}:${TOKEN}@…`."
    ),
    "option-not-allowed": (
        "Leave out options such as `--index-url` and `-r`. The index is chosen by the administrator, or in "
        "the user's `pip.conf`."
    ),
    "unknown-action": "Use one of the actions that the message lists.",
    "too-large": "Send less than 1,000,000 bytes.",
    "not-found": "Check the address. A server remembers its last 50 jobs, and forgets them when it stops.",
    "method-not-allowed": "Use another HTTP method; see the [REST interface](rest.md).",
    "not-available": "Wait for a later version; the name is reserved.",
    "not-authenticated": "Log in again, or send a token in the header `Authorization: token …`.",
    "not-authorized": "Ask for access to the resource `overlay` of this server.",
    "forbidden": "Send the value of the cookie `_xsrf` in the header `X-XSRFToken`, or use a token.",
    "busy": (
        "Wait until the other server has finished. One that was killed in the middle counts as gone after 20 "
        "seconds; the next change then repairs what it left."
    ),
    "no-such-package": (
        "Check the spelling, and that the index has it. Names that are close are shown; none is installed by "
        "itself."
    ),
    "no-matching-version": (
        "Ask for fewer constraints, or for another version: `log` names the package that stands in the way, "
        "or the Python that is needed."
    ),
    "conflict": "Change one of the requirements that the message names.",
    "would-break": (
        "Ask for other versions: `overlay plan` names what would not break anything, where there is such. Or "
        "install anyway: `overlay install --anyway`, or `force` in the REST interface. See "
        "[What the image's packages need](../explanation/conflicts.md)."
    ),
    "plan-changed": (
        "Ask for the plan again and look at it: the index, the overlay or the image has changed since."
    ),
    "policy": (
        "Ask for another version or another package. The message names the rule; rules are the "
        "administrator's (`overlay_deny`, `overlay_allow`, `overlay_only_binary`, `overlay_exclude_newer`), "
        "see [Policy](../how-to/policy.md)."
    ),
    "no-upload-times": (
        "Ask your administrator for an index that tells upload times (PEP 700, as PyPI does). "
        "With `overlay_exclude_newer`, what has no known age can't be installed."
    ),
    "cutoff-unsupported": (
        "Use uv (`overlayspawner[uv]` on the hub delivers it), or an image with pip 26.0 or later: older "
        "ones know no upload times, and `overlay_exclude_newer` is set."
    ),
    "size-limit": (
        "Uninstall what is no longer needed: `overlay list` shows sizes. The limit is the administrator's "
        "(`overlay_max_size`)."
    ),
    "build-failed": (
        "Ask for a version that has a wheel for this Python. Else the image needs a compiler and the "
        "headers: `log` has the last lines of the build."
    ),
    "index-unreachable": (
        "Try again. If it goes on: the container can't reach the package index. Check network, proxy "
        "variables and `overlay_index_url`."
    ),
    "index-auth": (
        "Check the credentials of the index: in `pip.conf`, in the environment, or in the hub's settings."
    ),
    "bad-package": (
        "Try again. If it comes back, the file in the index is damaged: tell whoever runs the index."
    ),
    "disk-full": (
        "Delete what is no longer needed, then try again. `overlay clean` tells what could be freed, and "
        "frees it: see [Free space](../how-to/space.md)."
    ),
    "read-only": "Ask the administrator about the storage behind the home.",
    "not-installed": "See `overlay list`.",
    "in-base": (
        "The image's packages can't be removed from an overlay. Install another version: it hides the "
        "image's."
    ),
    "installer-missing": (
        "Install `overlayspawner[uv]` in the hub's environment, or use an image with pip 22.2 or later. The "
        "message says why uv could not be fetched (`overlay_fetch_uv`)."
    ),
    "installer-failed": "Read `log`: it has the last lines of uv or pip.",
    "timeout": (
        "Try again. If it goes on, what is named in the message does not answer: the package index, a build, "
        "or the storage behind the home. Administrators limit jobs with `overlay_job_timeout` and "
        "`overlay_job_silence`."
    ),
    "cancelled": "Nothing: it was asked for.",
    "interrupted": (
        "Ask for it again, unless it says that it had been completed. The notice goes away with the next "
        "change that succeeds, or when the job is deleted."
    ),
    "no-overlay": (
        "Look at the notices in `overlay status`: they say why this server runs without its overlay."
    ),
    "internal": "Look into the server's log, run `overlay doctor`, and report what you find.",
}
