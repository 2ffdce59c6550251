#!/usr/bin/env python
"""Start the Jupyter server: under a hub its single-user server, else JupyterLab."""

import os
import shlex
import sys

arguments = sys.argv[1:]
if "JUPYTERHUB_API_TOKEN" in os.environ:
    command = ["start-singleuser.py", *arguments]
else:
    command = [
        "jupyter",
        os.environ.get("DOCKER_STACKS_JUPYTER_CMD", "lab"),
        *shlex.split(os.environ.get("NOTEBOOK_ARGS", "")),
        *arguments,
    ]
os.execvp(command[0], command)
