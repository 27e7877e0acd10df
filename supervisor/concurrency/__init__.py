"""Helpers for asyncio: timers, cancel scopes, helper tasks, backoff and the measurement of loop lag."""
