"""Helpers for asyncio: timers, cancellation, helper tasks, backoff and rate limits."""
