"""Generates the tables of README.md and of the pages beside this file, between their markers.

    python docs/tables.py          the tables from the registry and from the results on file
    python docs/tables.py --run    first runs the sweep and records which promise holds for whom
    python docs/tables.py --check  writes nothing; fails if a page is not up to date

`<!-- architectures -->` comes from the registry, `<!-- promises -->` from docs/promises.json, which `--run` makes of
the outcome of tests/test_conformance.py, `<!-- headlines -->` and `<!-- claims -->` from examples/claims/*.json, and
`<!-- speed -->` from benchmarks/results/*.json.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the checkout this file is in, whatever is installed

from hf_zoo.presets import read_presets  # noqa: E402
from hf_zoo.registry import ARCHITECTURES, Architecture  # noqa: E402
from hf_zoo.show import short_count  # noqa: E402
from hf_zoo.upstream.table import read_table  # noqa: E402

PROMISES = ROOT / "docs" / "promises.json"
CLAIMS = ROOT / "examples" / "claims"
SPEED = ROOT / "benchmarks" / "results"
SIGNS = {"holds": "yes", "waived": "waived", "fails": "**no**"}


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of GitHub's Markdown."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def architectures_table() -> str:
    """One row an architecture, from the registry, the presets and the tables of upstream types."""
    header = ("architecture", "what", "paper", "tasks", "LoRA targets", "opens and writes", "presets")
    return markdown_table(header, (_architecture_row(architecture) for architecture in ARCHITECTURES.values()))


def _architecture_row(architecture: Architecture) -> list[str]:
    paper, address = architecture.paper
    presets = (f"{name} ({short_count(preset['parameters'])})" for name, preset in read_presets(architecture).items())
    return [
        f"[`{architecture.model_type}`](modeling/{architecture.name}/README.md)",
        architecture.title,
        f"[{paper}]({address})",
        ", ".join(architecture.tasks),
        ", ".join(f"`{target}`" for target in architecture.lora_targets),
        ", ".join(f"`{name}`" for name in read_table(architecture)) or "-",
        ", ".join(presets),
    ]


def promises_table() -> str:
    """One row a promise, one column an architecture, from the sweep that was last recorded."""
    if not PROMISES.is_file():
        return "Not recorded yet: `python docs/tables.py --run`."
    recorded = json.loads(PROMISES.read_text(encoding="utf-8"))
    names = sorted({name for row in recorded.values() for name in row})
    header = ("promise", *(f"`{name}`" for name in names))
    rows = ((promise, *(SIGNS.get(row.get(name, ""), "-") for name in names)) for promise, row in recorded.items())
    return markdown_table(header, rows)


def headlines_table() -> str:
    """One row a claim: its first comparison, and whether all of them hold."""
    rows = [
        claim_row(report, report["comparisons"][0], all(c["holds"] for c in report["comparisons"]), "")
        for report in claim_reports()
    ]
    return claim_table(rows)


def claims_table() -> str:
    """One row a comparison."""
    return claim_table([claim_row(r, c, c["holds"], "../") for r in claim_reports() for c in r["comparisons"]])


def claim_reports() -> list[dict]:
    """What the claims' scripts wrote, each with the name of its `script`."""
    paths = sorted(CLAIMS.glob("*.json"))
    return [{**json.loads(path.read_text(encoding="utf-8")), "script": f"{path.stem}.py"} for path in paths]


def claim_row(report: dict, comparison: dict, holds: bool, root: str) -> list[str]:
    """Cells of one comparison; root leads from the page to the checkout."""
    return [
        f"[`zoo_{report['architecture']}`]({root}examples/claims/{report['script']})",
        report["paper"],
        comparison["statement"],
        ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in comparison["measured"].items()),
        SIGNS["holds" if holds else "fails"],
    ]


def claim_table(rows: list[list[str]]) -> str:
    """The rows under their heading."""
    if not rows:
        return "None recorded yet: `hf-zoo claims`."
    return markdown_table(("architecture", "paper", "claim", "measured", "holds"), rows)


def speed_tables() -> str:
    """One table a benchmark: the JSON files that the benchmarks write."""
    reports = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(SPEED.glob("*.json"))}
    parts = []
    for name, report in reports.items():
        rows = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in report["rows"]]
        parts.append(f"`zoo_{name}`, {report['note']}, {report['threads']} threads:")
        parts.append(markdown_table(report["rows"][0], rows))
    return "\n\n".join(parts) or "None recorded yet: `make bench`."


# page -> marker -> what makes its table
PAGES = {
    ROOT / "README.md": {"architectures": architectures_table, "headlines": headlines_table},
    ROOT / "docs" / "promises.md": {"promises": promises_table},
    ROOT / "docs" / "claims.md": {"claims": claims_table},
    ROOT / "docs" / "speed.md": {"speed": speed_tables},
}


def filled(page: Path, text: str) -> str:
    """A page's text with every table generated anew.

    Raises:
        ValueError: a pair of markers is missing.
    """
    for name, table in PAGES[page].items():
        opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.compile(rf"{opening}\n.*?{closing}", flags=re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{page.name} has no {opening} ... {closing}")
        content = f"{opening}\n\n{table()}\n\n{closing}"
        text = pattern.sub(lambda _, content=content: content, text)
    return text


def record_promises() -> None:
    """Run the whole sweep, slow promises included, and write who keeps what.

    A promise holds where all its tests pass, fails where one fails, and is waived where the Case says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        sweep = ["tests/test_conformance.py", "-n", "2", "-m", "not gpu and not hub", f"--junitxml={report}"]
        subprocess.run([sys.executable, "-m", "pytest", *sweep], cwd=ROOT, check=False)
        results = promises_of(report.read_text(encoding="utf-8"))
    PROMISES.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def promises_of(report: str) -> dict[str, dict[str, str]]:
    """Promise -> architecture -> "holds", "waived" or "fails", from a JUnit report of the sweep."""
    results: dict[str, dict[str, str]] = {}
    for test in ElementTree.fromstring(report).iter("testcase"):
        function, _, parameters = test.get("name").partition("[")
        promise = function.removeprefix("test_").replace("_", " ")
        for name in ARCHITECTURES:
            if not re.search(rf"(^|-){name}(-|\]|$)", parameters):
                continue
            outcome = "holds"
            if test.find("failure") is not None or test.find("error") is not None:
                outcome = "fails"
            elif test.find("skipped") is not None:
                outcome = "waived"
            row = results.setdefault(promise, {})
            # The worst counts, but one kind of head that has no use for a promise does not waive it for the others.
            order = ["waived", "holds", "fails"]
            row[name] = max(row.get(name, outcome), outcome, key=order.index)
    source = (ROOT / "tests" / "test_conformance.py").read_text(encoding="utf-8")
    order = [name.replace("_", " ") for name in re.findall(r"^def test_(\w+)", source, flags=re.MULTILINE)]
    return dict(sorted(results.items(), key=lambda item: order.index(item[0])))  # workers finish in any order


def main() -> None:
    """Fill the tables, or check that they are filled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--run", action="store_true", help="run the sweep first and record what holds")
    action.add_argument("--check", action="store_true", help="fail if a page is not up to date")
    arguments = parser.parse_args()
    if arguments.run:
        record_promises()
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(page, before)
        if not arguments.check:
            page.write_text(after, encoding="utf-8")
        elif after != before:
            sys.exit(f"{page.name} is not up to date: run `python docs/tables.py`")


if __name__ == "__main__":
    main()
