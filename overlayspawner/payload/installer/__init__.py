"""Installers behind one protocol: uv and pip."""
