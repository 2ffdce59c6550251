"""The Jupyter Server extension: the only part of the payload that imports tornado and jupyter_server."""
