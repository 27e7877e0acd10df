"""What a run of the program goes by: each setting written once, and found where people put it."""
