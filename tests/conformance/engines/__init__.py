"""One module for each engine, named as in ``make engine ENGINE=…``, with one ``Adapter`` in it."""
