"""Write the references that are made from the code, or with ``--check`` compare them with it.

``cxrg/cli/REFERENCE.md`` lists every command with its options, and the exit codes.
``cxrg/output/RECORD.md`` lists the fields of the JSON record, from its schema.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from typer.main import get_command

from cxrg.cli import app
from cxrg.errors import EXIT_MEANINGS
from cxrg.options import knobs_markdown
from cxrg.output.record import SCHEMA_FILE

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Written by `python .ci/reference.py`; do not edit. -->"


def commands() -> str:
    """Return the reference of the command line as Markdown."""
    lines = ["# Command reference", "", NOTE, ""]
    lines += ["`cxrg COMMAND --help` shows the same. Results go to standard output; progress,"]
    lines += ["warnings and errors go to standard error.", ""]
    for path, command in _walk(get_command(app), "cxrg"):
        lines += _command(path, command)
    lines += [
        "## Knobs",
        "",
        "Set with `--set KNOB=VALUE`; the last columns are the presets' defaults.",
        "",
    ]
    lines += [knobs_markdown()]
    lines += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in sorted(EXIT_MEANINGS.items())]
    return "\n".join(lines) + "\n"


def record() -> str:
    """Return the reference of the JSON record as Markdown."""
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    lines = ["# The JSON record", "", NOTE, "", f"Schema `{schema['$id']}`: {schema['title']}."]
    lines += [schema["description"], "", "| field | type | meaning |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {_type(part)} | {_cell(part.get('description', ''))} |"
        for name, part in _fields(schema)
    ]
    return "\n".join(lines) + "\n"


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with the words that call it."""
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        words = f"{path} {name}"
        if not hasattr(inner, "commands") or inner.invoke_without_command:
            yield words, inner
        yield from _walk(inner, words)


def _command(path: str, command: Any) -> list[str]:
    text = (command.help or "").replace("\b", "").strip()
    summary, _, rest = text.partition("Examples:")
    lines = [f"## `{path}`", "", summary.strip(), ""]
    if rest.strip():
        lines += ["```sh", *(line.strip() for line in rest.splitlines() if line.strip()), "```", ""]
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    rows = [_parameter(each) for each in shown if each.name != "help"]
    return [*lines, "| argument or option | meaning | default |", "|---|---|---|", *rows, ""]


def _parameter(parameter: Any) -> str:
    names = parameter.opts if parameter.param_type_name == "option" else []
    metavar = parameter.metavar or ""
    label = ", ".join(f"`{name}`" for name in names) or f"`{metavar or parameter.name.upper()}`"
    if names and metavar:
        label += f" `{metavar}`"
    default = parameter.default
    shown = default not in (None, False, "", (), []) and not callable(default)
    return f"| {_cell(label)} | {_cell(parameter.help or '')} | {f'`{default}`' if shown else ''} |"


def _fields(part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, inner in part.get("properties", {}).items():
        yield prefix + name, inner
        yield from _fields(inner, f"{prefix}{name}.")
        items = inner.get("items")
        if isinstance(items, dict):
            yield from _fields(items, f"{prefix}{name}[].")


def _type(part: Mapping[str, Any]) -> str:
    if "const" in part:
        return f"`{json.dumps(part['const'])}`"
    if "enum" in part:
        return " or ".join(f"`{json.dumps(each)}`" for each in part["enum"])
    kind = part.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the files, or compare them; return the exit code."""
    pages = {"cxrg/cli/REFERENCE.md": commands(), "cxrg/output/RECORD.md": record()}
    stale = []
    for name, text in pages.items():
        path = ROOT / name
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        sys.stderr.write(f"{', '.join(stale)}: not as the code says; run python .ci/reference.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
