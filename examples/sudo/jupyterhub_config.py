"""A hub that is not root: sudospawner starts each server as its user, with a package overlay.

See docs/how-to/other-spawners.md for what root prepares once: the payload, the script
``sudospawner-singleuser`` that runs it, and a line for sudo.
"""

from sudospawner import SudoSpawner

from overlayspawner import OverlayCommandMixin

c = get_config()


class OverlaySudoSpawner(OverlayCommandMixin, SudoSpawner):
    """The hub may not choose what sudo runs, so it neither delivers the payload nor wraps the command."""

    async def overlay_deliver(self):
        return ""  # sudospawner-singleuser, which only root can change, brings the payload

    async def overlay_launch(self):
        try:
            return await super().overlay_launch()
        except (RuntimeError, KeyError, ValueError) as e:  # sudo refused, or the command ended at once
            self.log.error("%s: sudospawner: %s", self._log_name, e)
            message = f"sudo could not start a server for {self.user.name}."
            raise self.overlay_failure(message, reason="sudo", hint=self.overlay_output_hint) from None


c.JupyterHub.spawner_class = OverlaySudoSpawner
c.SudoSpawner.sudospawner_path = "/opt/jupyterhub/bin/sudospawner"
