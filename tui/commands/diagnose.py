"""`tensorscope diagnose`: the account of a run as text or JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def diagnose(path: Path, as_json: bool) -> None:
    """Say what happened in the run at PATH: its layers, their shapes and statistics, and what is wrong.

    Exits with 0 if nothing is wrong, with 1 if there is a warning or an error, with 2 if the run cannot be read.
    """
    from tensorscope.diagnosis.engine import diagnose as find
    from tensorscope.events import Severity
    from tensorscope.run.reader import open_run

    run = open_run(path)
    findings = find(run)
    if as_json:
        facts = {"run": str(path), "status": run.status, "steps": run.last_step + 1}
        click.echo(json.dumps(facts | {"findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        from tui.report import print_report

        print_report(run, findings)
    sys.exit(int(any(finding.severity is not Severity.INFO for finding in findings)))
