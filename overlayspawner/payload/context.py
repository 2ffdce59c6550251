"""What the start found and decided, kept in the runtime dir for the server extension and the command line.

``server.json`` in the runtime dir (mode 0600, container-local) is this class in JSON.
"""

from __future__ import annotations

import os

from overlayspawner.payload import jsontext
from overlayspawner.payload.contract import SERVER_JSON, OverlayError, Spec
from overlayspawner.payload.overlay import Env, Overlay
from overlayspawner.payload.probe import Base


class Context:
    """One server's view of its overlay.

    Parameters
    ----------
    spec:
        The hub's instructions (defaults where there is no hub).
    base:
        The image's Python environment.
    home:
        The user's home directory as the server sees it.
    runtime:
        The runtime dir, or ``""`` where there is none.
    payload:
        Directory or zip that our code is imported from.
    overlay:
        The overlay, or ``None`` when this server runs without one (safe mode, no storage, root start).
    env:
        Its env on this base, or ``None``.
    mode:
        ``normal``, ``safe`` or ``degraded``.
    notices:
        What the user should know: ``{code, message, hint}`` each.
    restore_env:
        Environment variables of the server to put back once the extension is loaded: name to value, or
        to ``None`` for a variable that was not set.
    base_lock:
        The base's fingerprint at this start.
    """

    def __init__(
        self,
        *,
        spec: Spec,
        base: Base,
        home: str,
        runtime: str,
        payload: str,
        overlay: Overlay | None = None,
        env: Env | None = None,
        mode: str = "normal",
        notices: list[dict[str, str]] | None = None,
        restore_env: dict[str, str | None] | None = None,
        base_lock: str = "",
    ) -> None:
        self.spec = spec
        self.base = base
        self.home = home
        self.runtime = runtime
        self.payload = payload
        self.overlay = overlay
        self.env = env
        self.mode = mode
        self.notices = notices or []
        self.restore_env = restore_env or {}
        self.base_lock = base_lock
        self.variables: dict[str, str] = {}
        """What the server's environment differs by (only known to the process that opened the overlay)."""

    def require(self) -> tuple[Overlay, Env]:
        """Return the overlay and its env.

        Raises
        ------
        OverlayError
            ``no-overlay`` when this server runs without one.
        """
        if self.overlay is None or self.env is None:
            why = self.notices[-1]["message"] if self.notices else "It was started without one."
            raise OverlayError("no-overlay", f"This server has no overlay to change. {why}", status=409)
        return self.overlay, self.env

    def for_changes(self) -> Context:
        """Return the context to change the overlay with.

        In safe mode the server leaves the overlay alone, but not the user, who wants to repair it. The copy
        has no runtime dir: what this server's kernels run in stays as it is until the next start.
        """
        if self.mode != "safe" or self.overlay is not None or not self.home:
            return self
        from overlayspawner.payload.storage import overlay_path

        spec = self.spec
        overlay = Overlay(overlay_path(spec, self.home), name=spec.name, kind=spec.kind)
        env = overlay.env(self.base)
        if spec.lifetime != "persistent" or not env.usable():
            return self
        return Context(
            spec=spec,
            base=self.base,
            home=self.home,
            runtime="",
            payload=self.payload,
            overlay=overlay,
            env=env,
            notices=self.notices,
            base_lock=self.base_lock,
        )

    def to_json(self) -> str:
        """Return the JSON text of ``server.json``."""
        data = {
            "spec": self.spec.to_dict(),
            "base": self.base.to_dict(),
            "home": self.home,
            "payload": self.payload,
            "overlay": self.overlay and self.overlay.path,
            "env": self.env and self.env.path,
            "local": self.overlay and self.overlay.local,
            "mode": self.mode,
            "notices": self.notices,
            "restore_env": self.restore_env,
            "base_lock": self.base_lock,
        }
        return jsontext.dumps(data) + "\n"

    @classmethod
    def load(cls, runtime: str) -> Context:
        """Read ``server.json`` of a runtime dir.

        Raises
        ------
        OSError, ValueError, KeyError, TypeError, OverlayError
            The file is missing or not ours.
        """
        path = os.path.join(runtime, SERVER_JSON)
        with open(path, encoding="utf-8") as f:
            data = jsontext.loads(f.read())
        spec = Spec.from_dict(data["spec"])
        base = Base.from_dict(data["base"])
        overlay = None
        if data["overlay"]:
            overlay = Overlay(
                data["overlay"],
                name=spec.name,
                kind=spec.kind,
                lifetime=spec.lifetime,
                local=data.get("local") or "",
            )
        return cls(
            spec=spec,
            base=base,
            home=data["home"],
            runtime=runtime,
            payload=data["payload"],
            overlay=overlay,
            env=Env(data["env"], base.version) if data["env"] else None,
            mode=data["mode"],
            notices=data["notices"],
            restore_env=data["restore_env"],
            base_lock=data["base_lock"],
        )
