"""The hub side: spawners and their mixin."""
