"""The status for a browser, as the command `status` shows it.  Pure."""

from __future__ import annotations

from html import escape

from supervisor.control.door import Access
from supervisor.control.table import table_of
from supervisor.status import Status


class PlainPage:
    """A page without script or style, that loads itself anew."""

    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    def render(self, status: Status, access: Access) -> str:  # noqa: ARG002 - nothing can be asked for here
        head = '<meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>mobius-supervisor</title>'
        return f"<!doctype html><html><head>{head}</head><body>{self.render_body(status)}</body></html>"

    def render_body(self, status: Status) -> str:
        return f"<pre>{escape(table_of(status))}</pre>"
