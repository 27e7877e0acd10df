"""Tables of the reference, generated from the code: each function returns Markdown.

The Sphinx directive `generated` of `conf.py` puts them into the pages.  Nothing here needs Sphinx.
Tested by tests/test_docs.py.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from supervisor import exit_code
from supervisor.control.prometheus import PREFIX, exposition
from supervisor.exit_code import ExitCode
from supervisor.handler_api import options
from supervisor.handler_api.options import HandlerOptions
from supervisor.process import environment
from supervisor.reporting.report import SUBSTITUTES
from supervisor.settings.option import Option
from supervisor.settings.settings import OPTIONS
from supervisor.stats import Stats
from tests.sources import OURS, ROOT, parsed
from tests.status_world import STATUS

ERROR_TYPES: Mapping[str, str] = {
    "fatal_error": "The handler raised `PermanentError`. Catch-all retry policies do not retry it.",
    "Cancelled": "The server or an operator cancelled the job.",
    "Timeout": "The job ran longer than its `timeout`.",
    "MemoryLimit": "The job and its processes used more than the `memory` of the handler.",
    "OutOfMemory": (
        "The host, or the unit of the supervisor, ran out of memory, and the kernel killed the job. "
        "Without control groups such a job is reported as `ChildDied`."
    ),
    "ChildDied": "The process of the job died. The message has the signal or exit code and the last printed lines.",
    "Quarantined": "The job killed its child three times in a row. It is rejected for ten minutes without being run.",
    "InvalidResult": "The result cannot be encoded.",
    "InvalidParameters": "The parameters do not match the annotations of the handler.",
    "ActionNotRegistered": "No handler is registered for the action.",
    "WorkerShutdown": "The shutdown interrupted the job.",
    "ResultTooLarge": "The server rejected the result because of its size.",
    "ResultRejected": "The server rejected the result for another reason.",
    "SupervisorError": "The supervisor itself failed. The reason is in the message or in the log of the supervisor.",
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def settings() -> str:
    """One section for each setting of `run`, in the order of `--help`."""
    return "\n\n".join(_setting(option) for option in OPTIONS.values())


def _setting(option: Option) -> str:
    default = "required" if option.is_required else option.shown_default or option.default or "none"
    lines = [
        f"(setting-{option.name})=\n### `{option.flag}`\n",
        _escaped(option.help) + "\n",
        f"* Value: `{option.kind.metavar}`" if option.kind.metavar else "* Value: a switch",
        f"* Default: {_escaped(default)}",
        f"* Environment: {_codes(option.variables)}",
        f"* Key in the file of `--config`: `{option.name}`" if option.name != "config" else "",
        f"* Changes with a reload: {'no' if option.is_fixed or option.name == 'config' else 'yes'}",
    ]
    return "\n".join(line for line in lines if line)


def environment_of_settings() -> str:
    """Every environment variable that sets an option."""
    rows = [[_codes(option.variables), f"[`{option.flag}`](#setting-{option.name})"] for option in OPTIONS.values()]
    return table(("variable", "option"), rows)


def environment_of_children() -> str:
    """The variables that handlers inherit."""
    names = [*sorted(environment._ALLOWED), *(f"{prefix}*" for prefix in environment._ALLOWED_PREFIXES)]
    return _codes(names) + "."


def exit_codes() -> str:
    """The table of the exit codes."""
    meanings = attribute_texts(exit_code.__file__, "ExitCode")
    return table(("code", "meaning"), [[str(int(code)), " ".join(meanings[code.name].split())] for code in ExitCode])


def error_types() -> str:
    """The error types that the program itself reports."""
    return table(("error type", "meaning"), [[f"`{name}`", ERROR_TYPES[name]] for name in ERROR_TYPES])


def reported_error_types() -> set[str]:
    """The error types that occur in the code."""
    sources = "".join(file.read_text() for file in OURS.rglob("*.py"))
    return {*re.findall(r'(?:Failed|StopReason)\(\s*"(\w+)"', sources), *SUBSTITUTES}


def handler_options() -> str:
    """The arguments of `@handler`."""
    texts = attribute_texts(options.__file__, "HandlerOptions")
    kinds = inspect.get_annotations(HandlerOptions)
    types = {name: re.sub(r"ForwardRef\('(.*?)'.*", r"\1", str(kind)) for name, kind in kinds.items()}
    return table(("argument", "type", "meaning"), [[f"`{name}`", f"`{types[name]}`", texts[name]] for name in types])


def attribute_texts(file: str, name: str) -> dict[str, str]:
    """Return the docstrings of the attributes of a class, by attribute."""
    tree = parsed(Path(file))
    (body,) = [node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name]
    return dict(_attribute_texts(body))


def _attribute_texts(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, text in itertools.pairwise(body):
        match statement, text:
            case ast.AnnAssign(target=ast.Name(id=attribute)), ast.Expr(value=ast.Constant(value=str(words))):
                yield attribute, inspect.cleandoc(words)
            case ast.Assign(targets=[ast.Name(id=attribute)]), ast.Expr(value=ast.Constant(value=str(words))):
                yield attribute, inspect.cleandoc(words)


def metrics() -> str:
    """The table of all metrics, without the prefix."""
    stats = Stats()
    stats.job_ended(STATUS.recent[0])
    rows = []
    for family in text_string_to_metric_families(exposition(STATUS, stats).decode()):
        if family.name.startswith(PREFIX):
            labels = sorted({label for sample in family.samples for label in sample.labels if label != "le"})
            name = family.name.removeprefix(PREFIX) + ("_total" if family.type == "counter" else "")
            kind = f"{family.type.capitalize()}, by {_codes(labels)}" if labels else family.type.capitalize()
            rows.append([f"`{name}`", f"{_escaped(family.documentation)} {kind}."])
    return table(("name", "meaning"), sorted(rows))


def module_map() -> str:
    """Each package with its modules and the first line of each docstring."""
    return "\n\n".join(_room(folder) for folder in sorted(_packages(OURS)))


def _packages(folder: Path) -> Iterator[Path]:
    return (file.parent for file in folder.rglob("__init__.py"))


def _room(folder: Path) -> str:
    modules = sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
    rows = [[f"`{file.name}`", _escaped(_sentence(file))] for file in modules]
    heading = f"## {folder.relative_to(ROOT)}/\n\n{_escaped(_sentence(folder / '__init__.py'))}\n\n"
    return heading + (table(("module", "responsibility"), rows) if rows else "")


def _sentence(file: Path) -> str:
    text = ast.get_docstring(parsed(file)) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) {2}", first)[0]


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _escaped(text: str) -> str:
    """Escape in plain text what Markdown reads as markup; text in backquotes stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>$\[\]])", r"\\\1", part) for part in parts)


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings,
    "environment-of-settings": environment_of_settings,
    "environment-of-children": environment_of_children,
    "exit-codes": exit_codes,
    "error-types": error_types,
    "handler-options": handler_options,
    "metrics": metrics,
    "module-map": module_map,
}
