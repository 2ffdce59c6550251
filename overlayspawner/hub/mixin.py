"""What all overlay spawners have in common: the settings, waiting, progress, failure.

An engine's spawner is ``class X(OverlaySpawnerMixin, ParentSpawner)``. The mixin adds; it never replaces what
an administrator may set, and with ``overlay_enabled = False`` the parent is left alone.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyterhub.traitlets import ByteSpecification, Callable
from jupyterhub.utils import make_ssl_context, maybe_future, url_path_join
from traitlets import Bool, CaselessStrEnum, Float, HasTraits, List, Unicode, Union, validate

from overlayspawner.hub import choice, config, progress, waiting
from overlayspawner.hub.failure import config_failure, safe_url
from overlayspawner.payload.contract import KINDS, LIFETIMES, OverlayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from overlayspawner.hub.config import Settings

_CALLABLE = "\n\nA value, or a callable that takes the spawner and returns one; it may be async."


def _setting(trait: Any, help_text: str) -> Any:
    return Union([trait, Callable()], config=True, help=help_text.strip() + _CALLABLE)


class OverlaySpawnerMixin(HasTraits):
    """The ``overlay_*`` settings, and what every engine does with them."""

    log: Any  # the spawner's, from the class this is mixed into

    overlay_enabled = _setting(
        Bool(True),
        """
        Whether servers get a package overlay. When it is false, this spawner does what its parent does:
        nothing is wrapped or set, and nothing is mounted but a home volume that an earlier start made.

        Example, an overlay for one group only::

            def beta(spawner):
                return "beta" in {g.name for g in spawner.user.groups}

            c.OverlayDockerSpawner.overlay_enabled = beta
        """,
    )

    overlay_name = _setting(
        Unicode("default"),
        """
        Name of the overlay: 1 to 64 letters, digits, ``.``, ``_`` or ``-``. Servers with the same home and
        the same name share an overlay.
        """,
    )

    overlay_path = _setting(
        Unicode(".overlay/{name}"),
        """
        Where the overlay lives. A relative path is below the user's *persistent* storage: the home when
        something is mounted at or above it, else the single writable mount under the home, else the home.

        Fields: ``{name}`` (of the overlay), ``{username}``, ``{servername}`` (both escaped). See also:
        ``home_volume``.
        """,
    )

    overlay_kind = _setting(
        CaselessStrEnum(KINDS, "overlay"),
        """
        ``overlay``: users install packages on top of the image's. ``isolated``: their environment does not
        see the image's packages.
        """,
    )

    overlay_lifetime = _setting(
        CaselessStrEnum(LIFETIMES, "persistent"),
        """
        ``persistent``: packages stay in the user's storage. ``ephemeral``: they are gone with the container.
        """,
    )

    overlay_requirements = _setting(
        List(Unicode()),
        """
        Packages that you want in the overlay, one PEP 508 requirement each. They are kept apart from what the
        user asks for, and both are resolved together.

        Example, per group::

            def packages(spawner):
                groups = {g.name for g in spawner.user.groups}
                return ["geopandas>=1"] if "geo" in groups else []

            c.OverlayDockerSpawner.overlay_requirements = packages
        """,
    )

    overlay_installer = _setting(
        CaselessStrEnum(config.INSTALLERS, "auto"),
        """
        What installs: ``uv``, ``pip``, or ``auto`` (uv where there is one). uv comes from the hub's
        environment (``pip install overlayspawner[uv]``) when it fits the image, else from the image; else it
        is fetched once (``overlay_fetch_uv``).
        """,
    )

    overlay_fetch_uv = _setting(
        Bool(True),
        """
        Whether uv is fetched from the package index where neither the hub nor the image has one that runs:
        once, by the first change, with the pip that is there. It is kept in the user's storage (40 MB in
        ``.overlay/.cache/bin``) for all overlays; a rule of ``overlay_deny`` that means ``uv`` forbids it.
        """,
    )

    overlay_index_url = _setting(
        Unicode(""),
        """
        The package index to use instead of the one that the image is configured for.

        A credential in this URL can be read by the user: whatever is given to a container can be. Use a proxy
        index without a password instead.
        """,
    )

    overlay_extra_index_urls = _setting(
        List(Unicode()), "More package indexes. See also: ``overlay_index_url``."
    )

    overlay_constraints = _setting(
        List(Unicode()),
        """
        Constraints on versions, one PEP 508 requirement each: they are applied when a package is installed
        for any reason, but install nothing by themselves.
        """,
    )

    overlay_allow = _setting(
        List(Unicode()),
        """
        The packages that may come into an overlay; empty for all. Each is a rule: a name, in which ``*`` and
        ``?`` are wildcards, and perhaps versions.

        What a package needs has to be listed too, and so has what ``overlay_requirements`` needs, unless the
        image has it: the image's packages are always there, and so is what was installed before the rule.

        Example::

            c.OverlayDockerSpawner.overlay_allow = ["jupyter*", "torch<3", "numpy"]

        It guides our own commands and pages; a user's own ``python -m pip`` it can't stop. See also:
        ``overlay_deny``, which wins, and ``overlay_index_url``.
        """,
    )

    overlay_deny = _setting(
        List(Unicode()),
        """
        The packages that may not come into an overlay, also not because another needs them: rules as in
        ``overlay_allow``. What is installed already stays, but is not installed again for another image.

        Example, a package whose old versions are known to be unsafe, and a family of names::

            c.OverlayDockerSpawner.overlay_deny = ["torch<2.6", "internal-*"]

        A rule refuses, it does not choose: where the newest version is refused, users have to ask for another
        one. To choose versions, use ``overlay_constraints``. See also: ``overlay_allow``.
        """,
    )

    overlay_max_size = _setting(
        ByteSpecification(0),
        """
        How large an overlay's packages may get on one image, in bytes or with a suffix; 0 for no limit. A
        change that would exceed it is refused before it is made; uninstalling never is.

        Example::

            c.OverlayDockerSpawner.overlay_max_size = "5G"

        It counts the packages' own files, as they list them: not caches, not what is kept for undoing, not
        the environments of other images. To limit storage, use a quota of the storage. See also:
        ``home_volume``.
        """,
    )

    overlay_only_binary = _setting(
        Union([Bool(False), List(Unicode())]),
        """
        Wheels only: whether a package that comes as source code may not be built. ``True`` for all packages,
        or a list of the names that it is about.

        Building runs the package's code before anybody could look at it. Where a version has no wheel that
        fits, an older one with a wheel is taken, or the change is refused. What is installed already stays.

        Example::

            c.OverlayDockerSpawner.overlay_only_binary = True

        See also: ``overlay_exclude_newer``, ``overlay_allow``.
        """,
    )

    overlay_exclude_newer = _setting(
        Unicode(""),
        """
        Only what was uploaded to the index before this may come into an overlay: a date (its beginning, in
        UTC), a timestamp, or a duration up to the moment of each change. Empty for no limit. What is
        installed already stays.

        The index has to say when files were uploaded (PEP 700, as PyPI does). What it does not say it of
        can't be installed. With ``pip``, 26.0 or later is needed; an older one refuses to install.

        Example, time for others to find out what is wrong with a new release::

            c.OverlayDockerSpawner.overlay_exclude_newer = "7 days"

        Other forms: ``2026-11-19``, ``2026-11-19T12:00:00Z``, ``36 hours``, ``P7D``. A user's own setting
        (``UV_EXCLUDE_NEWER``, ``uploaded-prior-to`` of pip) counts where it is stricter. See also:
        ``overlay_only_binary``.
        """,
    )

    overlay_kernel = _setting(
        CaselessStrEnum(config.KERNELS, "replace"),
        """
        ``replace``: the kernel ``python3`` runs in the overlay, and the image's stays as ``python3-base``.
        ``add``: the image's stays ``python3``, and the overlay's is added.
        """,
    )

    overlay_restore = _setting(
        CaselessStrEnum(config.RESTORES, "background"),
        """
        What happens when an image needs another environment (another Python): packages are installed again
        in the ``background`` while the server is up, ``before-start`` of the server, or by the user
        (``manual``).
        """,
    )

    overlay_start_deadline = _setting(
        Float(10.0),
        """
        Seconds that the user's storage may take to answer at start. After that, the server starts without the
        overlay and says so.
        """,
    )

    overlay_user_site = _setting(
        CaselessStrEnum(config.USER_SITES, "kernels"),
        """
        Who sees ``~/.local``: ``kernels`` only (a broken package there can then not stop the server), also
        the ``server`` (as without an overlay), or ``never``.
        """,
    )

    overlay_lab_extensions = _setting(
        CaselessStrEnum(config.LAB_EXTENSIONS, "auto"),
        """
        Whether widgets and other extensions for JupyterLab that users install come into their pages:
        ``always``, ``never``, or ``auto``, which is always except with ``disable_user_config``.
        """,
    )

    overlay_job_timeout = _setting(
        Float(3600.0),
        """
        Seconds that one change of packages may take in a running server; 0 for no limit. What takes longer is
        ended with the code ``timeout``, and nothing is changed. Until then it keeps the server from being
        culled.

        See also: ``overlay_job_silence``.
        """,
    )

    overlay_job_silence = _setting(
        Float(300.0),
        """
        Seconds after which a change of packages that shows no sign of life is ended with the code
        ``timeout``: an index that doesn't answer, a build that waits for something. A sign of life is
        anything that is printed, read or written, or processor time. 0 for no limit.

        See also: ``overlay_job_timeout``.
        """,
    )

    overlay_form = _setting(
        CaselessStrEnum(config.FORMS, "auto"),
        """
        Whether the spawn page offers the overlay's own choices. ``auto``: only where you have a form already,
        so that servers that start with one click go on doing so. ``always``: everywhere. ``never``: nowhere.

        The choices are for one start only: *safe mode* (without the packages that the user installed), and
        *start over* (those packages are moved aside). Safe mode can also be had by a link,
        ``/hub/spawn?overlay=safe``, whatever this setting is.
        """,
    )

    _overlay_settings: Settings | None = None
    _overlay_chosen: choice.Choice | None = None
    _overlay_choice: choice.Choice | None = None
    _overlay_journal: progress.Journal | None = None
    _overlay_started = 0.0

    # -- settings ---------------------------------------------------------------------------------------

    async def _overlay_value(self, name: str) -> Any:
        """Return a trait's value; a callable is called with the spawner."""
        value = getattr(self, name)
        if callable(value):
            value = value(self)
            if inspect.isawaitable(value):
                value = await value
        return value

    async def _overlay_read_settings(self) -> Settings | None:
        """Return the settings of this spawn, ``None`` when the overlay is switched off.

        Raises
        ------
        tornado.web.HTTPError
            A setting can't be what it is.
        """
        if not await self._overlay_value("overlay_enabled"):
            return None
        values = {
            key: await self._overlay_value(f"overlay_{key}") for key in config.Settings.__dataclass_fields__
        }
        if isinstance(values["max_size"], str):
            values["max_size"] = ByteSpecification().validate(None, values["max_size"])
        try:
            return config.settings_from(values)
        except OverlayError as e:
            raise config_failure(e.message, e.hint) from None

    # -- what the user chose ----------------------------------------------------------------------------

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Around the instance's own methods, not in overrides of ours: an administrator's subclass may
        # override them without calling ours.
        me: Any = self
        me.get_options_form = partial(self._overlay_get_form, me.get_options_form)
        me.run_options_from_form = partial(self._overlay_from_form, me.run_options_from_form)
        me.options_from_query = partial(self._overlay_from_query, me.options_from_query)

    async def _overlay_get_form(self, inner: Any) -> Any:
        form = await maybe_future(inner())
        if not await self._overlay_value("overlay_enabled"):
            return form
        return choice.in_form(form or "", await self._overlay_value("overlay_form"))

    def _overlay_from_form(self, inner: Any, form: dict[str, Any]) -> Any:
        rest, chosen = choice.from_form(form)
        self._overlay_chosen = None  # a form says all there is to say about the next start
        return choice.with_choice(inner(rest), chosen)

    def _overlay_from_query(self, inner: Any, query: dict[str, Any]) -> Any:
        rest, chosen = choice.from_query(query)
        if rest or not query:
            return choice.with_choice(choice.of_link(inner(rest)), chosen)
        # Nothing but the choice: the link must not make the hub forget what was chosen before.
        stored = getattr(getattr(self, "orm_spawner", None), "user_options", None) or {}
        return choice.with_choice(dict(stored), chosen)

    @validate("user_options")
    def _overlay_take_choice(self, proposal: Any) -> Any:
        """Take our choice out of the options, also out of those that the hub has stored a moment ago.

        The hub gives options to the spawner before any hook of the administrator sees them, and nothing can
        come in between; so no start but this one finds the choice.
        """
        options = proposal["value"]
        rest, chosen = choice.split(options or {})
        if len(rest) == len(options or {}):
            return options
        self._overlay_chosen = chosen
        orm_spawner = getattr(self, "orm_spawner", None)
        if orm_spawner is not None:
            orm_spawner.user_options = rest
        return rest

    # -- the start --------------------------------------------------------------------------------------

    def _overlay_choose(self) -> None:
        """Begin to follow what was chosen for this start, and forget it."""
        self._overlay_choice, self._overlay_chosen = self._overlay_chosen, None

    def _overlay_tell_choice(self) -> None:
        """Show on the spawn page what is different this time."""
        if self._overlay_choice is not None:
            texts = {
                "safe": "Safe mode: starting without the packages that you installed",
                "reset": "Starting over: the packages that you installed are moved aside",
            }
            self._overlay_say(progress.CREATE, texts[self._overlay_choice.what])

    def _overlay_begin(self) -> None:
        """Note that a spawn starts."""
        self._overlay_started = time.monotonic()
        self._overlay_open_journal()

    def _overlay_open_journal(self) -> progress.Journal:
        """Return the journal of the spawn under way; a page may ask for it before ``start()`` is called."""
        if self._overlay_journal is None or self._overlay_journal.closed:
            self._overlay_journal = progress.Journal()
        return self._overlay_journal

    def _overlay_end(self) -> None:
        """Close the journal of a spawn."""
        if self._overlay_journal is not None:
            self._overlay_journal.close()

    def _overlay_say(self, percent: int, message: str, **more: Any) -> None:
        """Show a message on the spawn page; ``more`` goes along with it, for pages of the administrator's."""
        if self._overlay_journal is not None:
            self._overlay_journal.add(percent, message, **more)

    def _overlay_time_left(self) -> float:
        """Return for how many seconds ``start()`` may still wait for the server.

        The hub cancels ``start()`` at ``start_timeout`` and calls that a failure; when we return
        before, it goes on waiting for ``http_timeout`` by itself. So the wait ends early enough.
        """
        me: Any = self
        margin = min(5.0, 0.1 * me.start_timeout)
        left = me.start_timeout - (time.monotonic() - self._overlay_started) - margin
        return float(max(0.0, min(me.http_timeout, left)))

    def _overlay_url(self, ip: str, port: int) -> str:
        """Return the server's URL, as the hub writes it."""
        me: Any = self
        host = f"[{ip}]" if ":" in ip else ip
        base_url = me.server.base_url if me.server else "/"
        return f"{'https' if me.internal_ssl else 'http'}://{host}:{port}{base_url}"

    async def _overlay_wait(self, ip: str, port: int, until: asyncio.Future[Any] | None = None) -> bool:
        """Wait until the server answers; return whether it does. Never raises."""
        return await self._overlay_wait_at(self._overlay_url(ip, port), until)

    async def _overlay_wait_at(self, url: str, until: asyncio.Future[Any] | None = None) -> bool:
        """Wait until the server answers at its URL, which has its base path."""
        me: Any = self
        context = None
        if me.internal_ssl:
            settings = getattr(me.user, "settings", {})
            context = make_ssl_context(
                settings.get("internal_ssl_key"),
                settings.get("internal_ssl_cert"),
                cafile=settings.get("internal_ssl_ca"),
            )
        up = await waiting.wait_until_up(
            url_path_join(url, "api"), timeout=self._overlay_time_left(), ssl_context=context, until=until
        )
        if not up and not (until is not None and until.done()) and self._overlay_choice is None:
            # The hub goes on waiting by itself, and then says no more than that it took too long.
            safe = safe_url(self)
            if safe:
                self._overlay_say(
                    progress.SERVER,
                    f"The server does not answer yet. If it never does: {safe} starts it without the "
                    "packages that you installed.",
                )
        return up

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Give the phases of the spawn under way, for the spawn page."""
        parent: Any = super()
        async for event in self._overlay_open_journal().follow():
            yield event
        if self._overlay_settings is None:  # without an overlay, or it failed before
            async for event in parent.progress():
                yield event
