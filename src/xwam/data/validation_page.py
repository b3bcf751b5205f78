"""A validation for people: a table in the terminal, and one page that opens from disk."""

from collections import Counter
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

from xwam.core.files import write_atomically
from xwam.core.pictures import data_uri
from xwam.data.validate import Validation

STYLES = {"ok": "green", "warning": "yellow", "error": "red"}
# A page of more pictures is slow to open; those with findings come first.
MOST_SHEETS = 200

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --ok: #2a8f4f; --warning: #b7791f; --error: #c53030; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; margin: 1rem 0; }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }}
.ok {{ color: var(--ok); }} .warning {{ color: var(--warning); }} .error {{ color: var(--error); font-weight: 600; }}
.sheets {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 1rem; }}
figure {{ margin: 0; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }}
figure img {{ width: 100%; display: block; }}
figcaption {{ padding: .3rem .6rem; font-size: 13px; }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<table><tr><th>check</th><th>result</th><th>warnings</th><th>errors</th></tr>{checks}</table>
<h2>Findings</h2>{findings}
<h2>Episodes</h2><p>{shown}</p><div class="sheets">{sheets}</div>
</html>
"""


def print_validation(validation: Validation) -> None:
    """One line a check, then the findings, each once with the episodes that it is about."""
    console = Console()
    table = Table("check", "result", "warnings", "errors", title=_summary(validation))
    for name, (result, warnings, errors) in _counts(validation).items():
        table.add_row(name, f"[{STYLES[result]}]{result}", str(warnings or ""), str(errors or ""))
    console.print(table)
    for (check, severity, told, mend), episodes in _grouped(validation).items():
        console.print(f"[{STYLES[severity]}]{severity}[/] {check}: ", end="")
        console.print(f"{told}{_where(episodes)}; {mend}", markup=False, highlight=False)


def write_page(path: Path, validation: Validation) -> None:
    """Writes the page; all text that comes from the dataset is escaped."""
    checks = "".join(
        f'<tr><td>{name}</td><td class="{result}">{result}</td><td>{warnings}</td><td>{errors}</td></tr>'
        for name, (result, warnings, errors) in _counts(validation).items()
    )
    rows = "".join(
        f'<tr><td class="{severity}">{severity}</td><td>{check}</td><td>{escape(told + _where(episodes))}</td>'
        f"<td>{escape(mend)}</td></tr>"
        for (check, severity, told, mend), episodes in _grouped(validation).items()
    )
    header = "<tr><th></th><th>check</th><th>what</th><th>mend</th></tr>"
    worst = _worst(validation)
    order = sorted(validation.sheets, key=lambda episode: (-list(STYLES).index(worst.get(episode, "ok")), episode))
    shown = order[:MOST_SHEETS]
    content = PAGE.format(
        title=escape(f"Validation of {validation.root.name}"),
        summary=escape(_summary(validation)),
        checks=checks,
        findings=f"<table>{header}{rows}</table>" if rows else '<p class="ok">Nothing was found.</p>',
        shown=f"{len(shown)} of {len(order)} that could be decoded, those with findings first.",
        sheets="".join(_figure(validation, episode, worst.get(episode, "ok")) for episode in shown),
    )
    write_atomically(path, lambda file: file.write_text(content, encoding="utf-8"))


def _figure(validation: Validation, episode: int, severity: str) -> str:
    source = data_uri("image/jpeg", validation.sheets[episode])
    image = f'<img loading="lazy" alt="moments of episode {episode}" src="{source}">'
    said = f'episode {episode}: <span class="{severity}">{severity}</span>, {escape(validation.instructions[episode])}'
    caption = f"<figcaption>{said}</figcaption>"
    return f"<figure>{image}{caption}</figure>"


def _summary(validation: Validation) -> str:
    looked = len(validation.examined)
    share = f"all {looked}" if looked == validation.episodes else f"{looked} of {validation.episodes}"
    return f"{validation.root.name}: {share} episodes examined, {validation.errors} errors"


def _counts(validation: Validation) -> dict[str, tuple[str, int, int]]:
    """Each check's result, and the numbers of its warnings and errors."""
    found = Counter((finding.check, finding.severity) for finding in validation.findings)
    counts = {}
    for name in validation.checks:
        warnings, errors = found[name, "warning"], found[name, "error"]
        counts[name] = ("error" if errors else "warning" if warnings else "ok", warnings, errors)
    return counts


def _grouped(validation: Validation) -> dict[tuple[str, str, str, str], list[int | None]]:
    """The episodes of each finding, errors first."""
    groups: dict[tuple[str, str, str, str], list[int | None]] = {}
    for finding in sorted(validation.findings, key=lambda finding: finding.severity):
        groups.setdefault((finding.check, finding.severity, finding.told, finding.mend), []).append(finding.episode)
    return groups


def _where(episodes: list[int | None]) -> str:
    """Of which episodes a finding speaks, at most a few by number."""
    numbers = [str(episode) for episode in episodes if episode is not None]
    if not numbers:
        return ""
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f" (episode {', '.join(numbers[:8])}{more})"


def _worst(validation: Validation) -> dict[int | None, str]:
    worst: dict[int | None, str] = {}
    for finding in validation.findings:
        if worst.get(finding.episode) != "error":
            worst[finding.episode] = finding.severity
    return worst
