"""Parts of documents that others have written: what is missing, or of another kind, is empty."""

from __future__ import annotations

from typing import Any


def table(data: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a table of a document, empty where it has none."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """Return a list, empty for anything else."""
    return value if isinstance(value, list) else []


def strings(value: object) -> list[str]:
    """Return the texts of a list."""
    return [item for item in items(value) if isinstance(item, str)]
