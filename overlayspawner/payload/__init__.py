"""Everything of ours that runs inside the container. Standard library only, Python 3.9 and later."""
