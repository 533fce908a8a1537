"""The report as one HTML file: no script, nothing from elsewhere, every text escaped."""

from __future__ import annotations

import base64
from html import escape

from lightning_nlp.sweeps.results import Results, failures, rows

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2833; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
.wide { overflow-x: auto; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e6e9ec; white-space: nowrap; }
th { font-weight: 600; } td.facts { white-space: normal; }
tr.done:first-child td { font-weight: 600; background: #eef5fb; }
tr.pruned td, tr.waiting td { color: #7b8794; } tr.failed td { color: #b03a2e; }
img { max-width: 100%; height: auto; display: block; }
code { font: 12px/1.4 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
li { margin-bottom: .3rem; }
"""


def page(
    results: Results, pictures: dict[str, str], facts: list[tuple[str, str]], commands: list[tuple[str, str]]
) -> str:
    """The whole file.

    Args:
        results: of the sweep.
        pictures: SVG text by title; embedded as images, in which no script runs.
        facts: names and what to know.
        commands: of every trial, by its name.
    """
    columns, table = rows(results)
    title = escape(f"Sweep {results.opened.sweep.name}")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        "<table>",
        *(f'<tr><th>{escape(name)}</th><td class="facts">{escape(text)}</td></tr>' for name, text in facts),
        "</table>",
        '<h2>Configurations</h2><div class="wide"><table><thead><tr>',
        *(f"<th>{escape(column)}</th>" for column in columns),
        "</tr></thead><tbody>",
        *(table_row(row, row[columns.index("state")]) for row in table),
        "</tbody></table></div>",
    ]
    if failed := failures(results):
        parts += ["<h2>Failed trials</h2><ul>", *(f"<li>{escape(line)}</li>" for line in failed), "</ul>"]
    for name, svg in pictures.items():
        data = base64.b64encode(svg.encode()).decode()
        parts.append(f'<h2>{escape(name)}</h2><img alt="{escape(name)}" src="data:image/svg+xml;base64,{data}">')
    parts.append("<h2>Commands</h2><p>With another <code>--run</code>, each runs its trial again.</p><details>")
    parts.append(f"<summary>{len(commands)} trials</summary><ul>")
    parts += [f"<li>{escape(name)}: <code>{escape(line)}</code></li>" for name, line in commands]
    parts.append("</ul></details></body></html>")
    return "\n".join(parts) + "\n"


def table_row(row: list[str], state: str) -> str:
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
    return f'<tr class="{escape(state)}">{cells}</tr>'
