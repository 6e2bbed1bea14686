"""What the commands say of how well walkers or chains have mixed."""

from __future__ import annotations

import math

from systems.ensemble import ReferenceEnsemble
from workflows.trust import worst


def mixing_lines(ensemble: ReferenceEnsemble) -> list[str]:
    """Return what walkers agree about least, and how long the slowest basin is remembered, where frames suffice."""
    measured = ensemble.diagnostics
    if "split_r_hat" not in measured:
        return []
    strange = worst(measured["split_r_hat"])
    lines = [f"largest split R-hat: {measured['split_r_hat'][strange]:.3f} ({strange}); below 1.01 is mixed"]
    relaxation = {name: time for name, time in measured.get("relaxation_frames", {}).items() if math.isfinite(time)}
    if relaxation:
        slowest = max(sorted(relaxation), key=relaxation.__getitem__)
        time_ps, each_ps = (
            frames * ensemble.frame_interval_ps for frames in (relaxation[slowest], len(ensemble) / ensemble.n_groups)
        )
        lines.append(f"slowest relaxation: {time_ps:.3g} ps ({slowest}), in {each_ps:.3g} ps of each")
    return lines
