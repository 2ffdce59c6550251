"""What every engine has to do, checked on the real thing: one hub for each engine, one test for each check.

``make engine ENGINE=docker`` runs it on one engine. The checks are in ``test_engines.py``; what differs
between engines is behind :class:`tests.conformance.adapter.Adapter`, one class for each in ``engines/``. A
check that an engine can't have is named, with the reason, in its adapter's ``not_applicable``. What came out
is printed as a matrix at the end, and kept in ``matrix.json``, from which ``docs/reference/engines.md`` is
made.
"""
