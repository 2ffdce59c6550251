"""The part of the hub's configuration that is the same in every test; read by ``jupyterhub -f``.

It runs in the hub's process, in the directory of the harness, whose decisions are in ``harness.json``.
"""

import json
from pathlib import Path

here = Path.cwd()
harness = json.loads((here / "harness.json").read_text())

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - traitlets puts it here
c.JupyterHub.bind_url = harness["url"]
c.JupyterHub.hub_ip = harness["hub_ip"]
c.JupyterHub.hub_connect_ip = harness["hub_ip"]
c.JupyterHub.hub_port = harness["hub_port"]
c.JupyterHub.db_url = f"sqlite:///{here}/hub.sqlite"
c.JupyterHub.cookie_secret_file = str(here / "cookie_secret")
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = harness["password"]
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"admin"}
c.ConfigurableHTTPProxy.command = harness["proxy"]
c.ConfigurableHTTPProxy.api_url = harness["proxy_api"]
c.ConfigurableHTTPProxy.auth_token = harness["proxy_token"]
c.JupyterHub.services = [{"name": "harness", "api_token": harness["token"]}]
c.JupyterHub.load_roles = [
    {
        "name": "harness",
        "services": ["harness"],
        "scopes": ["admin:users", "admin:servers", "access:servers", "tokens", "read:hub", "shutdown"],
    }
]
# A request to start a server is answered at once, so that its progress can be followed from the beginning.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
c.JupyterHub.spawner_class = harness["spawner"]
c.Spawner.environment = harness["environment"]
if harness["image"]:
    c.DockerSpawner.image = harness["image"]
c.DockerSpawner.prefix = harness["prefix"]
c.DockerSpawner.remove = True


def configure(spawner):  # type: ignore[no-untyped-def]
    """Set the traits that the test asked for, for this user."""
    traits = json.loads((here / "users.json").read_text()).get(spawner.user.name, {})
    for name, value in traits.items():
        if name == "environment":
            value = {**spawner.environment, **value}
        setattr(spawner, name, value)


c.Spawner.pre_spawn_hook = configure
