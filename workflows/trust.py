"""When a free energy may be named: the classical yardstick and the learned path agree, and their error bars hold.

Each gate returns one sentence when it fails. Ablation rows never vote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workflows.results import EstimatorRow, is_finite

AGREEMENT_SIGMAS = 3.0
SMALLEST_OVERLAP = 0.03
"""Below this neighbour overlap the BAR error bar is no longer honest (measured on Gaussian work)."""
LARGEST_STDERR_KT = 0.5
"""A value with a wider error bar agrees with anything: it confirms nothing, and nothing confirms it [kT]."""
LARGEST_R_HAT = 1.1
"""Of the slowest watched quantity (Gelman & Rubin 1992); walkers are bootstrapped whole, so error bars allow for it."""
FEWEST_BY_THE_SLOWEST = 50.0
"""Independent frames that an ensemble alone has to be worth by whatever its walkers remember longest."""

SMALLEST_N_EFFECTIVE = 400.0
LARGEST_RISE = 0.25
"""Of the held-out loss from its lowest value, as a share of its whole drop: the network learns its frames by heart."""
LARGEST_STILL_FALLING = 0.1
"""Of the held-out loss in the last tenth of the steps, as a share of its whole drop: the training was too short."""


@dataclass(frozen=True)
class Check:
    """One gate that a result has to pass.

    Attributes:
        name: short, for a table.
        passed: whether it did.
        sentence: what is wrong, the value seen and what to do, told when it failed.
    """

    name: str
    passed: bool
    sentence: str


def decide(
    classical: EstimatorRow | None, learned: EstimatorRow | None, checks: Sequence[Check] = ()
) -> tuple[bool, tuple[str, ...]]:
    """Return whether a leg may name its classical value, and one sentence for each reason why not.

    Args:
        classical: the yardstick, BAR or MBAR of the reference ensembles; None where it was not run.
        learned: the full learned estimator (DSM + DiffCLF); None where it was not run.
        checks: further gates, of the ensembles and of the training.
    """
    reasons = [*_missing(classical, "classical yardstick"), *_missing(learned, "full learned estimator")]
    for row, name, advice in (
        (classical, "classical yardstick", "more states between them, or longer sampling, are needed"),
        (learned, "learned estimator", "more --path-levels, or a longer training, are needed"),
    ):
        if row is not None and is_finite(row):
            reasons += _poor_overlap(row, name, advice)
    if classical is not None and learned is not None and not reasons:
        reasons += _disagreement(classical, learned)
    for row, name, advice in (
        (classical, "classical error bar", "sample longer with --frames-per-walker"),
        (learned, "learned error bar", "train longer or on more frames"),
    ):
        if row is not None and is_finite(row) and row.stderr_kT > LARGEST_STDERR_KT:
            reasons.append(
                f"the {name} of {row.stderr_kT:.2g} kT is too wide to confirm anything "
                f"(limit {LARGEST_STDERR_KT} kT): {advice}"
            )
    reasons += failures(checks)
    return not reasons, tuple(reasons)


def failures(checks: Sequence[Check]) -> tuple[str, ...]:
    """Return one sentence for each gate that failed; a command that has any names no result and exits 3."""
    return tuple(check.sentence for check in checks if not check.passed)


def _missing(row: EstimatorRow | None, name: str) -> list[str]:
    if row is None:
        return [f"the {name} was not run, so nothing independent confirms the value: add it to --estimators"]
    if not is_finite(row):
        return [f"the {name} gave {row.value_kT} ± {row.stderr_kT} kT, which is no estimate: see run.log"]
    return []


def _poor_overlap(row: EstimatorRow, name: str, advice: str) -> list[str]:
    if row.overlap is None or row.overlap >= SMALLEST_OVERLAP:
        return []
    return [
        f"the overlap of the {name} is {row.overlap:.2g}, below {SMALLEST_OVERLAP}, so its error bar cannot be "
        f"believed: {advice}"
    ]


def _disagreement(classical: EstimatorRow, learned: EstimatorRow) -> list[str]:
    difference = learned.value_kT - classical.value_kT
    combined = math.hypot(classical.stderr_kT, learned.stderr_kT)
    if abs(difference) <= AGREEMENT_SIGMAS * combined:
        return []
    return [
        f"the learned value differs from the classical one by {difference:+.3f} kT, "
        f"{abs(difference) / combined:.1f} combined standard errors (limit {AGREEMENT_SIGMAS:.0f})"
    ]


def worst(r_hat: Mapping[str, float]) -> str:
    """Return the name of what walkers agree about least, the first of several by the alphabet."""
    return max(sorted(r_hat), key=lambda name: math.inf if math.isnan(r_hat[name]) else r_hat[name])


def check_walkers(state: str, r_hat: Mapping[str, float]) -> Check:
    """Gate on the largest split R-hat between walkers, of all that is watched."""
    return check_agreement(f"walkers of {state}", r_hat, "sample longer with --frames-per-walker")


def check_agreement(who: str, r_hat: Mapping[str, float], advice: str) -> Check:
    """Gate on the largest split R-hat between some that should agree, of all that is watched."""
    name = worst(r_hat)
    return Check(
        who,
        r_hat[name] <= LARGEST_R_HAT,
        f"the {who} disagree, most about {name} (R-hat {r_hat[name]:.3f}, limit {LARGEST_R_HAT}): {advice}",
    )


def check_slowest(state: str, effective_frames: Mapping[str, float]) -> Check:
    """Gate on what frames are worth by the slowest of all that is watched: walkers that never moved agree too."""
    name = min(effective_frames, key=effective_frames.__getitem__)
    return Check(
        f"frames of {state}",
        effective_frames[name] >= FEWEST_BY_THE_SLOWEST,
        f"the frames of {state} are worth {effective_frames[name]:.0f} independent ones by {name} (at least "
        f"{FEWEST_BY_THE_SLOWEST:.0f} wanted): sample longer with --frames-per-walker",
    )


def check_samples(state: str, n_effective: float) -> Check:
    """Gate on the effective number of independent frames of a state."""
    return Check(
        f"samples of {state}",
        n_effective >= SMALLEST_N_EFFECTIVE,
        f"the {state} ensemble holds only {n_effective:.0f} independent frames (at least "
        f"{SMALLEST_N_EFFECTIVE:.0f} wanted): sample longer with --frames-per-walker",
    )


def check_trained(name: str, held_out: Sequence[float]) -> Check:
    """Gate on the held-out loss: it must have fallen, and hardly still fall over the last tenth of the steps."""
    drop = held_out[0] - min(held_out)
    last = held_out[max(0, len(held_out) - 1 - max(1, len(held_out) // 10))] - held_out[-1]
    if drop <= 0:
        return Check(
            f"training of {name} finished",
            False,
            f"the network {name} learned nothing: its held-out loss never fell below its first record "
            f"{held_out[0]:.4g}; use more frames, or other --training-steps",
        )
    return Check(
        f"training of {name} finished",
        last <= LARGEST_STILL_FALLING * drop,
        f"the network {name} is undertrained: over the last tenth of the steps its held-out loss still fell by "
        f"{100 * last / drop:.0f} % of what it learned (limit {100 * LARGEST_STILL_FALLING:.0f} %): "
        "raise --training-steps",
    )


def check_overfit(name: str, held_out: Sequence[float]) -> Check:
    """Gate on how far the held-out loss has risen again from its lowest, as a share of its whole drop."""
    drop, rise = held_out[0] - min(held_out), held_out[-1] - min(held_out)
    share = f"{100 * rise / drop:.0f} % of what it had learned" if drop > 0 else "more than it had learned"
    return Check(
        f"overfitting of {name}",
        rise <= LARGEST_RISE * drop,
        f"the network {name} is overfitted: its held-out loss has risen from its lowest value by {share} "
        f"(limit {100 * LARGEST_RISE:.0f} %): use more frames, or fewer --training-steps",
    )


def overall(leg_reasons: Mapping[str, Sequence[str]]) -> tuple[bool, tuple[str, ...]]:
    """Return whether every leg is trustworthy, and each reason once, with the legs that it concerns before it."""
    legs_of: dict[str, list[str]] = {}
    for leg, several in leg_reasons.items():
        for reason in several:
            legs_of.setdefault(reason, []).append(leg)
    reasons = tuple(f"{', '.join(legs)}: {reason}" for reason, legs in legs_of.items())
    return not reasons, reasons
