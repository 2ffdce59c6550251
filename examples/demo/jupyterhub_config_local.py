"""The demo without a container engine: the same hub, whose servers are processes on this machine."""

import json
import os

c = get_config()
demo = json.loads(os.environ["OVERLAYSPAWNER_DEMO"])

load_subconfig("jupyterhub_config.py", path=os.path.dirname(__file__))

c.JupyterHub.spawner_class = "overlay-local"

# Neither root nor system users: every server runs as whoever started the demo.
c.OverlayLocalSpawner.overlay_local_simple = True
c.OverlayLocalSpawner.home_dir_template = demo["homes"] + "/{username}"
c.OverlayLocalSpawner.overlay_payload_dir = demo["payload_dir"]
c.Spawner.args = demo["args"]
