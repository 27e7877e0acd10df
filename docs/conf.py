"""The configuration of Sphinx for `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.generated import TABLES
from supervisor.version import __version__

if TYPE_CHECKING:
    from docutils.nodes import Node
    from sphinx.application import Sphinx

project = "mobius-supervisor"
release = version = __version__
extensions = ["myst_parser", "sphinx_click"]
source_suffix = {".md": "markdown"}
root_doc = "index"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # they make a dash of the hyphens of an option
default_role = "literal"  # help texts quote as Markdown does
html_theme = "furo"
html_title = "mobius-supervisor"
html_show_copyright = False
man_pages = [("reference/cli", "mobius-supervisor", "Mobius worker for CPU-heavy Python", "", 1)]


class Generated(SphinxDirective):
    """Insert one of the tables that `generated.py` makes from the code."""

    required_arguments = 1

    def run(self) -> list[Node]:
        return self.parse_text_to_nodes(TABLES[self.arguments[0]](), allow_section_headings=True)


def setup(app: Sphinx) -> None:
    """Register the directive `generated`."""
    app.add_directive("generated", Generated)
