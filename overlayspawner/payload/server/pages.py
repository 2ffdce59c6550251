"""What an overlay brings into pages: its widgets, other extensions for JupyterLab, and its kernels.

Copies of them are in the runtime dir, where JupyterLab looks (``labextensions.py`` says of which). They are
made beside, in threads, and put in their places on the server's loop: a page finds all of one or nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Optional

from overlayspawner.payload import envkernels, files, labextensions, labfolder
from overlayspawner.payload.context import Context
from overlayspawner.payload.dists import Dist, image_dists
from overlayspawner.payload.labextensions import Damaged, Extension, Lab, told
from overlayspawner.payload.labfolder import Found, Mark, TooLarge
from overlayspawner.payload.server import panel

ARGUMENT = "overlay-extensions"
"""Argument of a page's address: with ``off`` the page comes without the overlay's extensions."""

LOOP_TIMEOUT = 60.0
"""Seconds that a thread waits for the loop, which begins only once the server is loaded."""

_NOTICES = "labextension-"


class Pages:
    """The pages of one server.

    Parameters
    ----------
    context:
        What the start found.
    serverapp:
        The server.
    """

    def __init__(self, context: Context, serverapp: Any) -> None:
        self._context = context
        self._serverapp = serverapp
        self._lock = threading.Lock()
        self._state: object = None
        self._served: dict[str, Mark] = {}
        self._kernels: dict[str, Any] = {}
        self._lab: Optional[Lab] = None
        self._loop_ran = False
        self._share = os.path.join(context.runtime, "share", "jupyter")
        self._place = os.path.join(self._share, "labextensions")

    def start(self, on_loop: Callable[[Callable[[], None]], None]) -> None:
        """Look for the first time; in a thread of the caller's.

        Parameters
        ----------
        on_loop:
            Has something done on the server's loop, once it runs.
        """
        if self._context.runtime:
            on_loop(self._hook)
            self.refresh()

    def refresh(self) -> bool:
        """Bring pages up to date with the overlay; return whether a page that is loaded again differs.

        In any thread but the loop's. Never raises. Where nothing has changed, that is seen from the dates of
        a few files.
        """
        try:
            with self._lock:
                return self._refresh()
        except Exception as e:
            self._serverapp.log.warning("overlayspawner: widgets: %s: %s", type(e).__name__, e)
            return False

    # -- in a thread ----------------------------------------------------------------------------------

    def _refresh(self) -> bool:
        context = self._context
        env = context.env
        if not context.runtime:
            return False
        labs = self._labs()
        found = labfolder.scan(env) if env is not None and labs else []
        kernels = envkernels.scan(env) if env is not None else []
        state = (env.path if env else "", found, kernels)
        if state == self._state:
            return False
        wanted, left = self._decide(found) if found else ({}, {})
        served = dict(self._served)
        fresh: dict[str, str] = {}
        gone: list[str] = []
        try:
            for name, (extension, item) in wanted.items():
                if served.get(name) == item.mark:
                    continue
                try:
                    fresh[name] = self._prepare(extension, item)
                except TooLarge:
                    left[name] = _large()
                except OSError as e:
                    left[name] = (
                        f"it could not be copied: {e.strerror}",
                        "Free space, then restart the server.",
                    )
            now = {name: item.mark for name, (_, item) in wanted.items() if name not in left}
            gone = [name for name in served if name not in now]
            if fresh or gone:
                # what goes wrong half-way is done again the next time
                self._served = {**served, **dict.fromkeys(fresh)}
                for name in [*gone, *fresh]:
                    files.remove_tree(self._aside(name))
                self._on_loop(lambda: self._put(fresh, gone))
        finally:
            for path in [*fresh.values(), *map(self._aside, [*gone, *fresh])]:
                files.remove_tree(path)
        self._served = now
        complete = self._write_kernels()
        self._tell(found, left)
        self._state = state if complete else None
        return bool(now != served)

    def _labs(self) -> list[Any]:
        """Return the applications of the server that JupyterLab's extensions are loaded into."""
        return [app for app in panel.applications(self._serverapp) if hasattr(app, "labextensions_path")]

    def _decide(
        self, found: list[Found]
    ) -> tuple[dict[str, tuple[Extension, Found]], dict[str, tuple[str, str]]]:
        """Return what is served, and what is left out with the reason and the remedy."""
        wanted: dict[str, tuple[Extension, Found]] = {}
        left: dict[str, tuple[str, str]] = {}
        allowed = self._allowed()
        env = self._context.env
        assert env is not None
        self._owners: dict[str, Dist] = labfolder.owners(env, found)
        self._lab = self._lab or image_lab()
        loaded = self._loaded()
        installed = set(image_dists(self._context.base))
        for item in found:
            again = "Install its package again, or uninstall it."
            if item.mark is None:
                left[item.name] = "it is a link", "Install its package in the usual way."
                continue
            try:
                text = labfolder.read_text(os.path.join(item.path, "package.json"))
                extension = labextensions.read(text, item.name)
                if not os.path.isfile(os.path.join(item.path, extension.load)):
                    raise Damaged("the file that a page loads first is missing")
            except Damaged as e:
                left[item.name] = str(e), again
                continue
            except (OSError, ValueError):
                left[item.name] = "its package.json is damaged", again
                continue
            owner = self._owners.get(item.name)
            image = self._image_version(item.name)
            if image == extension.version:
                continue  # the image's is as good
            why = labextensions.why_not(
                extension,
                self._lab,
                image=image,
                modules=labfolder.server_extensions(env, owner) if owner else (),
                loaded=loaded,
                installed=installed,
            )
            if why is None and not allowed:
                why = (
                    "this server takes no settings of users, and so no extensions of theirs",
                    "Ask your administrator for the package in the image, or for overlay_lab_extensions.",
                )
            if why is not None:
                left[item.name] = why
            else:
                wanted[item.name] = extension, item
        return wanted, left

    def _allowed(self) -> bool:
        choice = self._context.spec.lab_extensions
        return choice == "always" or (choice != "never" and not self._no_user_config())

    def _no_user_config(self) -> bool:
        apps = [self._serverapp, *panel.applications(self._serverapp)]
        text = os.environ.get("JUPYTERHUB_DISABLE_USER_CONFIG", "")
        return text.lower() not in ("", "0", "false", "no") or any(
            getattr(app, "disable_user_config", False) is True for app in apps
        )

    def _loaded(self) -> set[str]:
        manager = getattr(self._serverapp, "extension_manager", None)
        found = getattr(manager, "extensions", None) or {}
        return {name for name, extension in found.items() if getattr(extension, "enabled", True)}

    def _image_version(self, name: str) -> str | None:
        """Return the version of an extension that is there without the overlay."""
        for app in self._labs():
            for place in [*getattr(app, "extra_labextensions_path", ()), *app.labextensions_path]:
                if place == self._place:
                    continue
                try:
                    data = json.loads(_text(os.path.join(place, name, "package.json")))
                    return str(data["version"])
                except (OSError, ValueError, KeyError, TypeError):
                    continue
        return None

    def _prepare(self, extension: Extension, item: Found) -> str:
        target = os.path.join(self._place, f".{extension.name.replace('/', '+')}")
        files.remove_tree(target)
        try:
            labfolder.copy(item.path, target, extension.package, good_schema)
        except BaseException:
            files.remove_tree(target)
            raise
        return target

    def _aside(self, name: str) -> str:
        return os.path.join(self._place, f".{name.replace('/', '+')}+old")

    def _write_kernels(self) -> bool:
        """Write the specifications that have changed; return whether all could be written."""
        env = self._context.env
        folder = os.path.join(self._share, "kernels")
        manager = getattr(self._serverapp, "kernel_spec_manager", None)
        taken: set[str] = set()
        for place in getattr(manager, "kernel_dirs", ()):
            with contextlib.suppress(OSError):
                taken.update(name.lower() for name in os.listdir(place) if place != folder)
        wanted = envkernels.wanted(env, taken) if env is not None else {}
        for name in [name for name in self._kernels if name not in wanted]:
            files.remove_tree(os.path.join(folder, name))
        written: dict[str, Any] = {}
        for name, (spec, source) in wanted.items():
            try:
                if self._kernels.get(name) != spec:
                    envkernels.write(folder, name, spec, source)
            except OSError:
                continue  # there may be space the next time
            written[name] = spec
        self._kernels = written
        return len(written) == len(wanted)

    def _tell(self, found: list[Found], left: dict[str, tuple[str, str]]) -> None:
        """Write the notices, as files: whoever asks for the status finds them."""
        folder = os.path.join(self._context.runtime, "notices")
        texts: dict[str, str] = {}
        for i, item in enumerate(item for item in found if item.name in left):
            owner = self._owners.get(item.name)
            about = told(
                item.name,
                owner.name if owner else "",
                owner.version if owner else "",
                *left[item.name],
            )
            texts[f"{_NOTICES}{i:03}.json"] = json.dumps(about)
        for name in os.listdir(folder):
            if name.startswith(_NOTICES) and name not in texts:
                files.unlink(os.path.join(folder, name))
        for name, text in texts.items():
            files.write_atomic(os.path.join(folder, name), text, 0o600, sync=False)

    # -- on the loop ----------------------------------------------------------------------------------

    def _on_loop(self, work: Callable[[], None]) -> None:
        """Do something on the loop, between two answers, and wait for it.

        Raises
        ------
        TimeoutError
            The server is ending, or hangs; it is not done any more then.
        Exception
            What the work raised.
        """
        loop = getattr(self._serverapp, "io_loop", None)
        if loop is None:
            work()
            return
        done, late = threading.Event(), threading.Event()
        errors: list[Exception] = []

        def run() -> None:
            try:
                if not late.is_set():
                    work()
            except Exception as e:
                errors.append(e)
            finally:
                done.set()

        loop.add_callback(run)
        until = time.monotonic() + LOOP_TIMEOUT
        while not done.wait(0.2):
            ended = self._loop_ran and not loop.asyncio_loop.is_running()
            if ended or time.monotonic() > until:  # a job must not wait for a server that is ending
                late.set()
                raise TimeoutError("the server's loop does not answer")
        self._loop_ran = True
        if errors:
            raise errors[0]

    def _put(self, fresh: dict[str, str], gone: list[str]) -> None:
        panel.make_known(self._serverapp, self._place)
        for name in [*gone, *fresh]:
            target = os.path.join(self._place, name)
            with contextlib.suppress(FileNotFoundError):
                # thousands of files may be in it: nobody shall wait until they are deleted
                files.rename(target, self._aside(name))
            if name in fresh:
                if "/" in name:
                    files.mkdir(os.path.dirname(target), 0o700)
                files.rename(fresh[name], target)
            elif "/" in name:
                files.rmdir(os.path.dirname(target))
        # jupyter_server remembers where it has found a file, also when it has gone
        from jupyter_server.base.handlers import FileFindHandler

        known = getattr(FileFindHandler, "_static_paths", None)
        if isinstance(known, dict):
            for path in [path for path, place in known.items() if "labextensions" in str(place)]:
                known.pop(path, None)

    def _hook(self) -> None:
        """Have pages asked for with ``?overlay-extensions=off`` come without the overlay's extensions."""
        settings = self._serverapp.web_app.settings
        before = settings.get("page_config_hook")

        def hook(handler: Any, config: dict[str, Any]) -> dict[str, Any]:
            if before is not None:
                config = before(handler, config)
            if handler.get_query_argument(ARGUMENT, "") != "off":
                return config
            return self._without(handler, config)

        settings["page_config_hook"] = hook

    def _without(self, handler: Any, config: dict[str, Any]) -> dict[str, Any]:
        """Return a page's configuration as it is without the overlay: a copy, since the page's is kept."""
        from jupyterlab_server.config import get_page_config

        app = handler.extensionapp
        paths = [*getattr(app, "extra_labextensions_path", ()), *app.labextensions_path]
        plain = get_page_config(
            [place for place in paths if place != self._place], getattr(app, "app_settings_dir", None)
        )
        ours = [item for item in config.get("federated_extensions", ()) if item["name"] == panel.NAME]
        images = [item for item in plain["federated_extensions"] if item["name"] != panel.NAME]
        disabled = plain.get("disabledExtensions", ())
        return {
            **config,
            "federated_extensions": [*ours, *images],
            "disabledExtensions": [item for item in config.get("disabledExtensions", ()) if item in disabled],
        }


def _large() -> tuple[str, str]:
    return f"it has more than {labfolder.MAX_BYTES >> 20} MB or {labfolder.MAX_FILES} files", "Uninstall it."


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as f:
        return f.read(labextensions.MAX_PACKAGE_JSON)


def good_schema(schema: dict[str, Any]) -> bool:
    """Whether JupyterLab takes a schema of settings."""
    try:
        from jsonschema import Draft7Validator

        Draft7Validator.check_schema(schema)
    except Exception:
        return False
    return True


def image_lab() -> Lab:
    """Return what the image's JupyterLab is; no majors where it does not tell, then every extension fits."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    try:
        number = str(version("jupyterlab"))
        spec = find_spec("jupyterlab")
        top = (spec.submodule_search_locations or [""])[0] if spec else ""
        with open(os.path.join(top, "staging", "package.json"), encoding="utf-8") as f:
            data = json.load(f)
        shared = set(data["jupyterlab"]["singletonPackages"])
        majors = {
            name: int(found.lstrip("~^").split(".")[0])
            for name, found in data["resolutions"].items()
            if name in shared and name.startswith("@jupyterlab/") and found.lstrip("~^")[:1].isdigit()
        }
    except (PackageNotFoundError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return Lab("unknown", {})
    return Lab(number, majors)
