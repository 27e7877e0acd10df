"""What a handler is made of and what it knows.  Runs in the zygote and its children; imports nothing heavy."""
