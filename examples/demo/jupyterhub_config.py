"""The demo's JupyterHub. Only the first setting has to do with overlays; `run.py` fills in the rest."""

import json
import os

c = get_config()

c.JupyterHub.spawner_class = "overlay-docker"

# Everything below is what any hub that runs its servers in Docker on one machine has.
demo = json.loads(os.environ.pop("OVERLAYSPAWNER_DEMO"))

c.JupyterHub.bind_url = f"http://127.0.0.1:{demo['port']}"
c.JupyterHub.db_url = "sqlite:///hub.sqlite"
c.ConfigurableHTTPProxy.command = demo["proxy"]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{demo['proxy_api_port']}"

# Containers reach the hub at this machine's address on Docker's bridge.
c.JupyterHub.hub_ip = demo["hub_ip"]
c.JupyterHub.hub_port = demo["hub_port"]

c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = demo["password"]
c.Authenticator.allowed_users = {demo["user"]}

c.DockerSpawner.image = demo["image"]
c.DockerSpawner.prefix = demo["prefix"]
c.DockerSpawner.remove = True

# The certificates and the package index of this machine, where it has its own.
c.DockerSpawner.read_only_volumes = demo["read_only_volumes"]
c.Spawner.environment = demo["environment"]
