"""The page as it is sent: `index.html` with what changes filled in.  Reads that file once, when it is imported.

The browser gets the whole page once and then, by server-sent events, what `render_body` says: it builds no row itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
from enum import Enum
from importlib import resources

from supervisor.page.figures import element, joined, moment
from supervisor.page.headline import alerts, headline, title
from supervisor.page.slots import outcomes_table, slots_table
from supervisor.status import Status

_FILE = resources.files("supervisor.page").joinpath("index.html").read_text(encoding="utf-8")
_EDITION = hashlib.sha256(_FILE.encode()).hexdigest()[:12]


class Access(Enum):
    """What this viewer may do beside looking; the server decides again when something is asked for."""

    LOOK = "look"
    UNLOCK = "unlock"
    """The page asks for a token and sends it along."""
    STEER = "steer"


def render(status: Status, access: Access) -> str:
    """The whole page, readable without JavaScript."""
    # In one pass: what a job says must not be taken for another placeholder.
    parts = {"access": access.value, "title": joined(title(status)), "body": render_body(status)}
    return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]], _FILE)


def render_body(status: Status) -> str:
    """What stands in `<main>`, the same for every viewer; the page puts it in place of what it shows.

    A page of another edition than `data-edition` loads itself anew.
    """
    return element(
        "div",
        headline(status),
        alerts(status),
        slots_table(status.slots),
        outcomes_table(status.recent),
        element("footer", "As of ", moment(status.now), " UTC"),
        id="body",
        data_title=title(status),
        data_edition=_EDITION,
    )


def _hash_of(tag: str) -> str:
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", _FILE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash_of('style')}",
        f"script-src {_hash_of('script')}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The header that is sent with the page: this style, this script, and calls to where it came from; nothing else."""
