"""What several test suites share: the local package index, a real hub, a client of its servers."""
