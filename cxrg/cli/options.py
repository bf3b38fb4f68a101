"""``cxrg options``: every knob of the method, with its meaning, values and defaults."""

from __future__ import annotations

import json

from cxrg.cli.knobs import AsJson
from cxrg.cli.terminal import table, write
from cxrg.options import PRESETS, as_text, knob_rows


def options(as_json: AsJson = False) -> None:
    """List every knob that --set takes: meaning, values, and its default in each preset.

    A model's card may replace defaults; `cxrg models show NAME` lists them.
    """
    rows = knob_rows()
    if as_json:
        write(json.dumps(rows))
        return
    cells = [
        [row["knob"], f"{row['meaning']}\n{row['values']}"]
        + [as_text(row["knob"], value) for value in row["defaults"].values()]
        for row in rows
    ]
    table(["knob", "meaning and values", *PRESETS], cells, firm=("knob", *PRESETS))
