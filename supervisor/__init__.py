"""mobius-supervisor: the Mobius worker for CPU-heavy Python.

This package exports what authors of handlers import. Importing it loads no heavy dependency.

    from supervisor import Context, PermanentError, handler

    @handler("summarize", timeout="10m")
    def summarize(context: Context, document_id: str) -> dict[str, object]:
        notes = [gist(page) for page in context.track(pages(document_id))]
        return {"summary": join(notes)}

The job's parameters arrive as the function's arguments, checked against their annotations. The return value is the
result. An exception fails the attempt; `PermanentError` fails the job without retries. The handler runs in a child
process, forked from a zygote that has imported all handlers. The parent can therefore always stop it: the child first
raises `Cancelled` in the handler, and the parent kills the child if the handler does not end.

    cli ── service ── pool ── slot ── attempt ═══HTTP═══ Mobius
                                         ║ pipe
                 zygote ═══fork═══▶ child_main ──▶ handlers/*

The packages, from the top. Each imports only from those below it; tests/test_package.py holds the exact order.

    cli, demo              the command line
    service                one run of the program: start, operator commands, reload, shutdown
    control, page          status, metrics and commands over HTTP; the status page
    pool, attempt          slots and claims; one job with its lease, events and outcome
    reporting, dialects    delivery and storage of outcomes; the server's protocol over HTTP
    devserver              a small server with the same protocol, for authors of handlers and for tests
    settings, logs         options and their sources; the program's log
    process                the parent's side of the zygote and the children
    child                  the code that runs inside the zygote and the children
    handler_api            the `@handler` decorator, `Context`, parameters and results
    ipc, linux             messages between parent and child; system calls and files of the kernel
    concurrency, text      helpers for asyncio; formatting and parsing of text
    job, job_server …      types that several packages share
"""

from supervisor.handler_api.context import Cancelled, Context, PermanentError
from supervisor.handler_api.registry import handler
from supervisor.version import __version__

__all__ = ["Cancelled", "Context", "PermanentError", "__version__", "handler"]
