"""The complete page: `index.html` with its placeholders filled in.  Reads the file once, at import.

The browser loads the whole page once and then receives the output of `render_body` as server-sent events.
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
    """What a viewer may do besides reading.  The server checks each command again."""

    LOOK = "look"
    UNLOCK = "unlock"
    """The page asks for a token and sends it with each command."""
    STEER = "steer"


def render(status: Status, access: Access) -> str:
    """Return the whole page, which is readable without JavaScript."""
    # One pass: text from a job must not be treated as another placeholder.
    parts = {"access": access.value, "title": joined(title(status)), "body": render_body(status)}
    return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]], _FILE)


def render_body(status: Status) -> str:
    """Return the content of `<main>`, the same for every viewer.  The script updates the page with it.

    A page whose edition differs from `data-edition` reloads itself.
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
"""The policy header of the page: only its own style, its own script, and requests to its own origin."""
