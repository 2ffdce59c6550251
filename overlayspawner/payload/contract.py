"""The data both sides share: the spec the hub hands to a container, the codes of errors and notices.

This module is imported on the start path of every container, so it imports nothing but what the
interpreter has loaded anyway (``json`` only inside functions), and uses plain classes: ``dataclasses``
and ``typing`` cost more to import than the whole of our own work at start.

Everything here is a public, versioned contract. A change to a field comes with its migration in
:meth:`Spec.from_dict`.
"""

from __future__ import annotations

SPEC_VERSION = 1
"""Version of the spec's JSON. A container accepts specs of its own version and older ones."""

SPEC_ENV = "OVERLAYSPAWNER_SPEC"
"""Environment variable that holds the spec as JSON; removed from the server's environment once read."""

SPEC_FILE_ENV = "OVERLAYSPAWNER_SPEC_FILE"
"""Environment variable that names a file holding the spec, where a variable would be too small."""

MAX_SPEC_BYTES = 131_071
"""One environment variable holds fewer than 131,072 bytes (Linux ``MAX_ARG_STRLEN``, 32 pages)."""

PAYLOAD_DIR = "/opt/overlayspawner"
"""Where engines with volumes mount the payload, read-only."""

UV_DIR = "/opt/overlayspawner-uv"
"""Where engines with volumes mount ``uv``, read-only."""

PAYLOAD_ZIP = "overlay.pyz"
PAYLOAD_LAUNCHER = "launcher.sh"
PAYLOAD_START = "start.bin"
PAYLOAD_COMPLETE = "COMPLETE"
"""Written last into a payload volume: without it the volume counts as empty."""

LABEXTENSION = "labextension"
"""Directory of the package, here and in the zip, that holds the built front end."""

RUNTIME_ENV = "OVERLAYSPAWNER_RUNTIME"
"""Tells the server extension where the runtime dir is; removed from the environment when it loads."""

RUNTIME_PREFIX = "overlayspawner-"
"""What the names of runtime dirs begin with."""

RUNTIME_LOCK = "in-use"
"""File in a runtime dir that its server holds a lock on."""

SERVER_JSON = "server.json"
"""In the runtime dir: what the bootstrap found and decided, for the server extension and the command line."""

MARK = "overlayspawner: "
"""Start of every line our code prints on a container's standard error: ``overlayspawner: [code] sentence``.

The hub reads these lines from the container's output, as hints only: whatever a container prints is
untrusted.
"""

MARK_READY = "overlay-ready"

KINDS = ("overlay", "isolated")
LIFETIMES = ("persistent", "ephemeral")
MODES = ("normal", "safe", "degraded")

# Codes of errors and notices. They are stable: documentation, tests and front ends match on them, never on
# the words of a message. `docs/reference/codes.md` lists each with what to do.
CODES = {
    # starting
    "payload-missing": "The overlay's payload is missing or incomplete in this container.",
    "no-python": "No Python interpreter of a Jupyter server was found in this image.",
    "no-shell": "This image has no /bin/sh.",
    "no-command": "This image has neither a command nor an entrypoint that could be wrapped.",
    "bad-spec": "The hub's instructions could not be read.",
    "deadline": "The storage did not answer in time.",
    "bootstrap-failed": "Preparing the overlay failed.",
    "no-runtime-dir": "There is no writable place for temporary files.",
    "home-unknown": "The home directory of this image could not be found.",
    "home-unwritable": "The home directory cannot be written to.",
    "home-full": "The home directory's file system is full.",
    "not-persistent": "Nothing of this home is on a volume: packages vanish with the container.",
    "root-start": "The server starts as another user than the owner of the home.",
    "env-broken": "The overlay's environment is damaged.",
    "kernel-rescued": "A kernel was started without the overlay's copies of its own modules.",
    "kernel-base": "A kernel was started with the image's packages only.",
    "labextension-left-out": "A JupyterLab extension of the overlay is not loaded.",
    "kernel-not-replaced": "The Python kernel could not be replaced by the overlay's.",
    "old-server": "This image's Jupyter Server is too old for the Packages interface.",
    "user-site-hidden": "Server extensions in ~/.local are not loaded.",
    "old-container": "This container was created before the overlay's settings changed.",
    "safe-mode": "This server was started without the overlay.",
    "reset-done": "The overlay was moved aside and a new one was started.",
    "restoring": "Your packages are being installed again for this image.",
    "restore-waiting": "Your packages are not installed for this image yet.",
    "restore-partial": "Some of your packages could not be installed again for this image.",
    "base-changed": "The image's packages have changed.",
    "home-moved": "The home directory has another path than before.",
    "damaged-file": "A file of the overlay is damaged.",
    "no-locks": "This storage cannot lock files.",
    "no-kernel": "The isolated environment has no kernel yet.",
    "packages-missing": "Files of installed packages are missing.",
    "packages-partial": "A package is not completely installed.",
    "requirements-pending": "requirements.txt was edited by hand.",
    "adopted": "Packages that were installed in another way were added to the overlay.",
    "against-policy": "The overlay holds packages that this hub's rules refuse.",
    "user-site-packages": "There are packages in ~/.local.",
    "venvs-found": "There are environments that were made by hand.",
    # requests
    "bad-request": "The request could not be understood.",
    "bad-requirement": "A requirement could not be understood.",
    "option-not-allowed": "Options are not allowed among requirements.",
    "unknown-action": "There is no such action.",
    "too-large": "The request is too large.",
    "not-found": "There is no such thing.",
    "method-not-allowed": "This can't be done with that.",
    "not-available": "This action is not available in this version.",
    "not-authenticated": "Nobody is logged in.",
    "not-authorized": "This user may not do that.",
    "forbidden": "The request was refused.",
    # changing an overlay
    "busy": "Another server is changing this overlay.",
    "no-such-package": "No such package.",
    "no-matching-version": "No version fits this Python and the other packages.",
    "conflict": "The requirements contradict each other.",
    "would-break": "Something that is there would stop working.",
    "plan-changed": "Something else would be done than what was agreed to.",
    "policy": "This hub's rules refuse a package.",
    "no-upload-times": "The package index does not say when its files were uploaded.",
    "cutoff-unsupported": "This pip can't leave out what is newer than this hub allows.",
    "size-limit": "The overlay would be larger than this hub allows.",
    "build-failed": "A package could not be built.",
    "index-unreachable": "The package index could not be reached.",
    "index-auth": "The package index refused the credentials.",
    "bad-package": "A package from the index is damaged.",
    "disk-full": "There is no space left.",
    "read-only": "The overlay's storage cannot be written to.",
    "cannot-undo": "There is no change to undo.",
    "not-restored": "The packages could not be installed again.",
    "not-installed": "The package is not installed in this overlay.",
    "in-base": "The package belongs to the image.",
    "installer-missing": "Neither uv nor pip was found.",
    "installer-failed": "The installer failed.",
    "timeout": "It took too long.",
    "cancelled": "It was cancelled.",
    "interrupted": "The server stopped while the job ran.",
    "no-overlay": "This server runs without an overlay.",
    "internal": "Something unexpected happened.",
}


class OverlayError(Exception):
    """An error a user may see: what happened, what to do, and a stable code.

    Parameters
    ----------
    code:
        One of :data:`CODES`.
    message:
        What happened and why, one sentence first; defaults to the code's own sentence.
    hint:
        What to do about it.
    status:
        The HTTP status of the answer in which the error is reported.
    log:
        Lines of a tool's output that explain the error (redacted, bounded by who raises it).
    """

    def __init__(
        self, code: str, message: str = "", hint: str = "", *, status: int = 400, log: str = ""
    ) -> None:
        if code not in CODES:
            raise ValueError(f"unknown error code {code!r}")
        super().__init__(message or CODES[code])
        self.code = code
        self.message = message or CODES[code]
        self.hint = hint
        self.status = status
        self.log = log

    def to_dict(self) -> dict[str, str]:
        """Return the JSON shape of errors: ``{code, message, hint}`` and ``log`` where there is one."""
        out = {"code": self.code, "message": self.message, "hint": self.hint}
        if self.log:
            out["log"] = self.log
        return out


def notice(code: str, message: str = "", hint: str = "") -> dict[str, str]:
    """Return a notice ``{code, message, hint}``; the message defaults to the code's own sentence."""
    return {"code": code, "message": message or CODES[code], "hint": hint}


def split_rule(text: str) -> tuple[str, str]:
    """Take a rule of ``allow`` or ``deny`` apart: ``torch<2`` is ``("torch", "<2")``.

    Parameters
    ----------
    text:
        A name, in which ``*`` and ``?`` stand for any characters and any one, and perhaps versions as in a
        PEP 508 requirement.

    Returns
    -------
    tuple
        The name, normalised as names of packages are, and the versions without spaces (``""`` for all).

    Raises
    ------
    OverlayError
        ``bad-spec`` for anything else: extras, markers, URLs, options, nothing.
    """
    import re

    name = r"[A-Za-z0-9*?](?:[A-Za-z0-9*?._-]*[A-Za-z0-9*?])?"
    clause = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9][A-Za-z0-9.+!_-]*(?:\.\*)?"
    found = re.fullmatch(rf"\s*({name})\s*({clause}(?:\s*,\s*{clause})*)?\s*", text, re.ASCII)
    if not found:
        raise OverlayError(
            "bad-spec",
            f"{text!r} is not a rule about packages: a name, perhaps with * in it, perhaps with versions.",
            "For example: numpy, torch<2, jupyter*",
        )
    return re.sub(r"[-_.]+", "-", found[1]).lower(), re.sub(r"\s+", "", found[2] or "")


def cutoff(text: str, now: float | None = None) -> str:
    """Return the moment that ``exclude_newer`` means, in UTC: ``2026-11-19T00:00:00Z``.

    Parameters
    ----------
    text:
        A date (its beginning, in UTC), an RFC 3339 timestamp, or a duration until now: ``7 days``,
        ``36 hours``, ``P7D``, ``P1DT12H``. No months and years: they are of no certain length.
    now:
        Seconds since the epoch; the clock's when left out.

    Raises
    ------
    OverlayError
        ``bad-spec`` for anything else.
    """
    import datetime
    import re

    number = r"([0-9]{1,6})"
    words = re.fullmatch(rf"{number} ?(weeks?|w|days?|d|hours?|hrs?|h|minutes?|mins?|m)", text.strip(), re.I)
    iso = re.fullmatch(
        rf"P(?:{number}W)?(?:{number}D)?(?:T(?:{number}H)?(?:{number}M)?)?", text.strip(), re.I | re.ASCII
    )
    try:
        parts = [int(part or 0) for part in iso.groups()] if iso and any(iso.groups()) else []
        if words or parts:
            if words:
                unit = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes"}[words[2][0].lower()]
                length = datetime.timedelta(**{unit: int(words[1])})
            else:
                weeks, days, hours, minutes = parts
                length = datetime.timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes)
            clock = datetime.datetime.now(datetime.timezone.utc)
            if now is not None:
                clock = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
            moment = clock - length
        else:
            found = re.fullmatch(
                r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d)(?:\.\d+)?(Z|z|[+-]\d\d:\d\d))?",
                text.strip(),
                re.ASCII,
            )
            if not found:
                raise ValueError
            zone = (found[3] or "Z").upper().replace("Z", "+00:00")
            moment = datetime.datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00:00'}{zone}")
        return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
    except (ValueError, OverflowError):
        raise OverlayError(
            "bad-spec",
            f"{text!r} is neither a date, nor a timestamp with its zone, nor a duration.",
            "For example: 2026-11-19, 2026-11-19T12:00:00Z, 7 days, P7D",
        ) from None


class Spec:
    """The hub's instructions to one container.

    Parameters
    ----------
    name:
        Name of the overlay.
    path:
        Where the overlay lives, with ``{name}`` replaced: absolute, or relative to the persistent storage
        (the home, or the single writable mount under it).
    mounts:
        The administrator's and our own mounts as ``{"path": str, "ro": bool}``, or ``None`` where the
        engine has none (local processes): then the home counts as persistent.
    kind, lifetime:
        See the vocabulary: ``overlay|isolated``, ``persistent|ephemeral``.
    requirements:
        The administrator's requirements; kept apart from the user's and merged when resolving.
    installer:
        ``auto``, ``uv`` or ``pip``.
    fetch_uv:
        Whether a change may fetch uv into the user's storage where neither hub nor image has one.
    index_url, extra_index_urls, constraints, allow, deny, max_size:
        Where packages come from and which may: ``allow`` and ``deny`` hold rules such as ``torch<2`` or
        ``jupyter*``; ``max_size`` in bytes, 0 for no limit.
    only_binary:
        Names of packages that may come as wheels only; ``:all:`` for all.
    exclude_newer:
        What was uploaded later may not come: see :func:`cutoff`; empty for no limit.
    kernel:
        ``replace`` (the overlay is ``python3``) or ``add`` (the image's stays ``python3``).
    restore:
        ``background``, ``before-start`` or ``manual``.
    deadline:
        Seconds the bootstrap may take before the server is started without it.
    user_site:
        ``kernels``, ``server`` or ``never``: who sees ``~/.local``.
    lab_extensions:
        ``auto``, ``always`` or ``never``: whether extensions for JupyterLab come from the overlay.
    job_timeout, job_silence:
        Seconds that a job may take, and that it may show no sign of life; 0 for no limit.
    safe:
        This start runs without the overlay.
    reset:
        At this start the overlay is moved aside and a new one begins.
    nonce:
        Tells one request for ``safe`` or ``reset`` from another: each is followed once, also when the
        container is started again with the same instructions.
    start_timeout:
        Seconds the hub waits for the server; what is done before the start has to fit in.
    image:
        What the container's image is called, for exports; empty where that is not known.
    owner:
        Id of the user to whom the home belongs, -1 where the hub does not know: root does not open the
        overlay of another user.
    notices:
        What the hub wants to be shown to the user.
    """

    def __init__(
        self,
        *,
        name: str = "default",
        path: str = ".overlay/default",
        mounts: list[dict[str, object]] | None = None,
        kind: str = "overlay",
        lifetime: str = "persistent",
        requirements: list[str] | None = None,
        installer: str = "auto",
        fetch_uv: bool = True,
        index_url: str = "",
        extra_index_urls: list[str] | None = None,
        constraints: list[str] | None = None,
        allow: list[str] | None = None,
        deny: list[str] | None = None,
        max_size: int = 0,
        only_binary: list[str] | None = None,
        exclude_newer: str = "",
        kernel: str = "replace",
        restore: str = "background",
        deadline: float = 10.0,
        user_site: str = "kernels",
        lab_extensions: str = "auto",
        job_timeout: float = 3600.0,
        job_silence: float = 300.0,
        safe: bool = False,
        reset: bool = False,
        nonce: str = "",
        start_timeout: float = 60.0,
        image: str = "",
        owner: int = -1,
        notices: list[dict[str, str]] | None = None,
    ) -> None:
        self.name = name
        self.path = path
        self.mounts = mounts
        self.kind = kind
        self.lifetime = lifetime
        self.requirements = requirements or []
        self.installer = installer
        self.fetch_uv = fetch_uv
        self.index_url = index_url
        self.extra_index_urls = extra_index_urls or []
        self.constraints = constraints or []
        self.allow = allow or []
        self.deny = deny or []
        self.max_size = max_size
        self.only_binary = only_binary or []
        self.exclude_newer = exclude_newer
        self.kernel = kernel
        self.restore = restore
        self.deadline = deadline
        self.user_site = user_site
        self.lab_extensions = lab_extensions
        self.job_timeout = job_timeout
        self.job_silence = job_silence
        self.safe = safe
        self.reset = reset
        self.nonce = nonce
        self.start_timeout = start_timeout
        self.image = image
        self.owner = owner
        self.notices = notices or []

    def to_dict(self) -> dict[str, object]:
        """Return the JSON shape, with the version of the contract as ``v``."""
        return {"v": SPEC_VERSION, **self.__dict__}

    def to_json(self) -> str:
        """Return the spec as one line of JSON.

        Raises
        ------
        OverlayError
            ``bad-spec`` when it would not fit into one environment variable.
        """
        import json

        text = json.dumps(self.to_dict(), separators=(",", ":"), sort_keys=True)
        size = len(SPEC_ENV) + 1 + len(text.encode()) + 1
        if size > MAX_SPEC_BYTES:
            raise OverlayError(
                "bad-spec",
                f"The overlay's settings take {size:,} bytes; a variable holds {MAX_SPEC_BYTES:,}.",
                "Move long lists (requirements, constraints, allow, deny) into a package index.",
            )
        return text

    @classmethod
    def from_dict(cls, data: object) -> Spec:
        """Read a spec. Unknown fields are ignored: a newer hub may know more than this payload.

        Raises
        ------
        OverlayError
            ``bad-spec`` when it is not a spec, or has a field of a wrong type.
        """
        if not isinstance(data, dict) or not isinstance(data.get("v"), int):
            raise OverlayError("bad-spec", "The hub's instructions are not a versioned JSON object.")
        spec = cls()
        for key, default in list(spec.__dict__.items()):
            if key not in data:
                continue
            value = data[key]
            if key in ("deadline", "start_timeout", "job_timeout", "job_silence") and isinstance(value, int):
                value = float(value)
            fits = (
                value is None or isinstance(value, list) if key == "mounts" else type(value) is type(default)
            )
            if not fits:
                raise OverlayError(
                    "bad-spec", f"The field {key!r} of the hub's instructions has a wrong type."
                )
            setattr(spec, key, value)
        for key, allowed in (("kind", KINDS), ("lifetime", LIFETIMES)):
            if getattr(spec, key) not in allowed:
                raise OverlayError(
                    "bad-spec", f"{key} is {getattr(spec, key)!r}, not one of {', '.join(allowed)}."
                )
        return spec

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """Read a spec from JSON text.

        Raises
        ------
        OverlayError
            ``bad-spec``, as :meth:`from_dict`.
        """
        from overlayspawner.payload import jsontext

        try:
            data = jsontext.loads(text)
        except ValueError as e:
            raise OverlayError("bad-spec", f"The hub's instructions are not JSON: {e}") from None
        return cls.from_dict(data)
