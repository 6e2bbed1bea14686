"""What the commands say of how well walkers or chains have mixed."""

from __future__ import annotations

import math

from systems.ensemble import ReferenceEnsemble
from workflows.trust import worst


def slowest_relaxation_ps(ensemble: ReferenceEnsemble) -> tuple[str, float] | None:
    """Return the basin that is remembered longest, and how long [ps]; None where nothing was watched.

    It is infinite where walkers crossed too seldom to tell.
    """
    frames = ensemble.diagnostics.get("relaxation_frames")
    if not frames:
        return None
    slowest = worst(frames)
    return slowest, frames[slowest] * ensemble.frame_interval_ps


def mixing_lines(ensemble: ReferenceEnsemble) -> list[str]:
    """Return what walkers agree about least, and how long the slowest basin is remembered, where frames suffice."""
    measured = ensemble.diagnostics
    if "split_r_hat" not in measured:
        return []
    strange = worst(measured["split_r_hat"])
    lines = [f"largest split R-hat: {measured['split_r_hat'][strange]:.3f} ({strange}); below 1.01 is mixed"]
    slowest = slowest_relaxation_ps(ensemble)
    if slowest is not None:
        name, time_ps = slowest
        each_ps = len(ensemble) / ensemble.n_groups * ensemble.frame_interval_ps
        told = f"about {time_ps:.3g} ps" if math.isfinite(time_ps) else "not to be told, crossings are too few"
        lines.append(f"slowest relaxation: {told} ({name}), in {each_ps:.3g} ps of each")
    return lines
