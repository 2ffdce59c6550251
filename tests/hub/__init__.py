"""Tests of the hub side."""
