"""``python -m workflows.solvation``: the solvation free energy of a molecule by several independent estimators."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from boltzgen_diffclf.errors import NotTrustworthyError
from workflows.command_line import run_command
from workflows.solvation_presets import PRESETS
from workflows.solvation_settings import SolvationConfig

if TYPE_CHECKING:
    from workflows.results import SolvationResult

__all__ = ["PRESETS", "SolvationConfig", "main", "run"]

FREE_SETTINGS = frozenset({"out", "device"})
"""Settings that may be written otherwise when a run goes on: the folder may be moved, and keeps the device itself."""


def run(config: SolvationConfig) -> SolvationResult:
    """Return the solvation free energies; the run folder keeps ``results.json``, ``report.html`` and all stages.

    Raises:
        InputError: a setting, a file or the folder is wrong.
        NotTrustworthyError: raised after everything has been written; ``results.json`` says why.
        RunFailedError: the run could not go on.
    """
    from boltzgen_diffclf.training import parallel
    from workflows.report.page import write_report
    from workflows.report.summary import print_summary
    from workflows.run_start import open_run_folder
    from workflows.solvation_pipeline import choose_device, solve
    from workflows.solvation_preflight import judge, keep_device

    device = choose_device(config.device)
    with parallel.joined(device):
        judge(config)  # before the folder keeps these settings
        with open_run_folder(config.folder, config, FREE_SETTINGS) as folder:
            keep_device(folder, device)
            report = solve(config, folder, device)
            if parallel.is_first():
                report.result.save(folder.path / "results.json")
                page = write_report(report, folder.path)
                print_summary(report.result, page)
                if not report.result.trustworthy:
                    raise NotTrustworthyError(_verdict(report.result, page))
    return report.result


def _verdict(result: SolvationResult, page: Path) -> str:
    more = f" (and {len(result.reasons) - 1} more)" if len(result.reasons) > 1 else ""
    return f"the result is not trustworthy: {result.reasons[0]}{more}; all is written in {page}"


def main() -> int:
    """Run the command line and return its exit code."""
    return run_command(SolvationConfig, run, program="python -m workflows.solvation", presets=PRESETS)


if __name__ == "__main__":
    sys.exit(main())
