"""The API for authors of handlers: decorator, context, parameters and results.  Runs in the zygote and in children."""
