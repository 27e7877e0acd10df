"""mobius-supervisor: the Mobius worker for CPU-heavy Python.

What the author of a handler needs is here; nothing heavy is imported with it.

    from supervisor import Context, PermanentError, handler

    @handler("summarize", timeout="10m")
    def summarize(context: Context, document_id: str) -> dict[str, object]:
        notes = [gist(page) for page in context.track(pages(document_id))]
        return {"summary": join(notes)}

The job's parameters arrive as the function's arguments, checked against their annotations; what it returns is the
result, what it raises fails the attempt (`PermanentError`: for good).  It runs in a process of its own, forked from
one that has imported all handlers, and so it can always be stopped: first `Cancelled` is raised in it, then it is
killed.

    cli ── service ── pool ── slot ── attempt ═══HTTP═══ Mobius
                                         ║ pipe
                 zygote ═══fork═══▶ child_main ──▶ handlers/*

The rooms, from the top; each imports from those below it (and handling the form of what a child says, from process).

    cli, commands, demo    what people type
    program                one run as a whole: opened, steered, reloaded, shut down
    control, page          seen and steered from outside
    work                   pool, slots, attempts, leases
    reporting, api         outcomes on their way; the server's protocol over HTTP
    devserver              the same protocol served, for authors and tests
    settings, logs         what a run goes by; what it writes about itself
    process                children and the zygote, and what runs inside them
    handling               what a handler is made of and knows
    timing, text           small things for all of them
    job, server, status …  the nouns that everybody shares
"""

from supervisor.handler_api.context import Cancelled, Context, PermanentError
from supervisor.handler_api.registry import handler
from supervisor.version import __version__

__all__ = ["Cancelled", "Context", "PermanentError", "__version__", "handler"]
