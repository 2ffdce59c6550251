"""The packages that the local index serves."""
