"""The parents' own test suites, with their classes and with ours."""
