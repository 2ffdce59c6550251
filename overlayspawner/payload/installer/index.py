"""Where packages come from: the hub's settings, else the image's own of pip and uv.

Both installers shall use the same index. pip's configuration (files and ``PIP_*`` variables) is read here as
pip reads it, reduced to what concerns indexes and connections, and handed to either tool in environment
variables: a command line can be read by every user of a machine, and URLs hold credentials.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from overlayspawner.payload.context import Context
from overlayspawner.payload.limits import Limits
from overlayspawner.payload.procs import clean_env

# Options of pip that say where packages come from and how they are fetched. All else (user, target, prefix,
# require-virtualenv …) would send an install elsewhere.
_OPTIONS = frozenset(
    {
        "cache-dir",
        "cert",
        "client-cert",
        "constraint",
        "default-timeout",
        "extra-index-url",
        "find-links",
        "index-url",
        "keyring-provider",
        "no-binary",
        "no-cache-dir",
        "no-index",
        "only-binary",
        "pre",
        "prefer-binary",
        "proxy",
        "resume-retries",
        "retries",
        "timeout",
        "trusted-host",
        "uploaded-prior-to",
    }
)
_SOURCES = frozenset({"index-url", "extra-index-url", "find-links", "no-index"})

# Variables of uv that mean the same for any environment.
_UV_KEPT = (
    "UV_CONCURRENT_",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_HTTP_",
    "UV_INDEX",
    "UV_INSECURE_HOST",
    "UV_KEYRING_PROVIDER",
    "UV_NATIVE_TLS",
    "UV_NO_INDEX",
    "UV_OFFLINE",
    "UV_REQUEST_TIMEOUT",
    "UV_SYSTEM_CERTS",
)
_UV_SOURCES = ("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX", "UV_NO_INDEX")


def pip_options(ctx: Context, environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's options as the image and the user have set them; values as in a ``PIP_*`` variable."""
    out: dict[str, str] = {}
    if environ.get("PIP_CONFIG_FILE") != os.devnull:
        for path in _config_files(ctx, environ):
            out.update(_read_config(path))
    for key, value in environ.items():
        if key.startswith("PIP_") and value:
            out[key[4:].lower().replace("_", "-")] = value
    return {key: value for key, value in out.items() if key in _OPTIONS}


def _config_files(ctx: Context, environ: Mapping[str, str]) -> list[str]:
    """The files pip reads, weakest first."""
    dirs = [d for d in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep) if d]
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(ctx.home, ".config")
    out = [os.path.join(d, "pip", "pip.conf") for d in reversed(dirs)]
    out += [
        "/etc/pip.conf",
        os.path.join(ctx.home, ".pip", "pip.conf"),
        os.path.join(config, "pip", "pip.conf"),
    ]
    out.append(os.path.join(ctx.base.prefix, "pip.conf"))
    if environ.get("PIP_CONFIG_FILE"):
        out.append(environ["PIP_CONFIG_FILE"])
    return out


def _read_config(path: str) -> dict[str, str]:
    import configparser

    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}  # pip says what is wrong with it; here it must not stop anything
    out: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            for key, value in parser.items(section):
                out[key.replace("_", "-")] = " ".join(value.split())
    return out


def settings(ctx: Context, environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's options with the hub's settings applied.

    Where the hub names an index, nothing else is looked at: neither another index nor local folders.
    """
    out = pip_options(ctx, environ)
    if ctx.spec.index_url:
        out = {key: value for key, value in out.items() if key not in _SOURCES}
        out["index-url"] = ctx.spec.index_url
    if ctx.spec.extra_index_urls:
        out["extra-index-url"] = " ".join(ctx.spec.extra_index_urls)
    return out


def limits_of(ctx: Context, environ: Mapping[str, str] | None = None) -> Limits:
    """Return what of an index may be taken: the hub's limits, and the user's where they are stricter.

    Raises
    ------
    OverlayError
        See :class:`~overlayspawner.payload.limits.Limits`.
    """
    source = os.environ if environ is None else environ
    own = [source.get("UV_EXCLUDE_NEWER", ""), pip_options(ctx, source).get("uploaded-prior-to", "")]
    return Limits(ctx.spec.only_binary, ctx.spec.exclude_newer, [text for text in own if text])


def pip_env(ctx: Context, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a pip that acts on the overlay."""
    source = os.environ if environ is None else environ
    env = clean_env(source)
    for key, value in settings(ctx, source).items():
        env["PIP_" + key.upper().replace("-", "_")] = value
    env.update(
        # all that counts was read above; the rest of those files is for other environments
        PIP_CONFIG_FILE=os.devnull,
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_INPUT="1",
        PIP_NO_COLOR="1",
        PIP_PROGRESS_BAR="off",
        PIP_ROOT_USER_ACTION="ignore",
        PIP_NO_WARN_SCRIPT_LOCATION="1",
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONNOUSERSITE="1",
        PYTHONUNBUFFERED="1",
    )
    return env


def uv_env(ctx: Context, cache: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a uv that acts on the overlay.

    Parameters
    ----------
    cache:
        uv's cache directory, on the env's file system.
    """
    source = os.environ if environ is None else environ
    env = clean_env(source)
    own = {key: value for key, value in source.items() if key.startswith(_UV_KEPT) and value}
    options = settings(ctx, source)
    if ctx.spec.index_url:
        own = {key: value for key, value in own.items() if not key.startswith(_UV_SOURCES)}
    elif any(key.startswith(_UV_SOURCES) for key in own):
        # The image says what uv shall use; pip's settings are for pip.
        options = {key: value for key, value in options.items() if key not in _SOURCES}
    else:
        # What was written for pip means pip's way of looking at all indexes and taking the best version.
        env["UV_INDEX_STRATEGY"] = source.get("UV_INDEX_STRATEGY", "unsafe-best-match")
    env.update(own)
    for key, variable in (
        ("index-url", "UV_DEFAULT_INDEX"),
        ("extra-index-url", "UV_INDEX"),
        ("trusted-host", "UV_INSECURE_HOST"),
        ("constraint", "UV_CONSTRAINT"),
    ):
        if options.get(key):
            env.setdefault(variable, options[key])
    if options.get("find-links"):
        env.setdefault("UV_FIND_LINKS", ",".join(options["find-links"].split()))
    if _true(options.get("no-index", "")):
        env.setdefault("UV_NO_INDEX", "1")
    for key, variable in (("cert", "SSL_CERT_FILE"), ("client-cert", "SSL_CLIENT_CERT")):
        if options.get(key):
            env.setdefault(variable, options[key])
    timeout = options.get("timeout") or options.get("default-timeout")
    if timeout:
        env.setdefault("UV_HTTP_TIMEOUT", timeout.partition(".")[0])
    if options.get("proxy"):
        for variable in ("HTTP_PROXY", "HTTPS_PROXY"):
            if variable not in env and variable.lower() not in env:
                env[variable] = options["proxy"]
    data = source.get("XDG_DATA_HOME") or os.path.join(ctx.home, ".local", "share")
    if not os.path.isdir(os.path.join(data, "uv", "credentials")):
        # it would make that folder only to lock it, also for a plan; where it is, `uv auth login` made it
        env.setdefault("UV_CREDENTIALS_DIR", os.path.join(cache, "credentials"))
    env.update(
        NO_COLOR="1",
        UV_CACHE_DIR=cache,
        # a uv.toml or pyproject.toml that happens to lie about is for other environments
        UV_NO_CONFIG="1",
        UV_NO_PROGRESS="1",
        UV_PYTHON_DOWNLOADS="never",
    )
    return env


def _true(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on", "t", "y")
