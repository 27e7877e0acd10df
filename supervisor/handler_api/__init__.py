"""The API for authors of handlers: registration, typed parameters, context and results.  Imports no asyncio."""
