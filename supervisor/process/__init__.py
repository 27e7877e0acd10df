"""Processes: `X.py` is the parent's handle on X, `X_main.py` is what runs inside X; what both say to each other."""
