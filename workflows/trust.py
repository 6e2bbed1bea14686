"""When a free energy may be named: the classical yardstick and the learned path agree, and their error bars hold.

Each gate returns one sentence when it fails. Ablation rows never vote.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workflows.results import EstimatorRow, is_finite

if TYPE_CHECKING:
    from boltzgen_diffclf.estimators.estimate import Estimate
    from boltzgen_diffclf.estimators.reweighting import WeightDiagnostics
    from boltzgen_diffclf.observables.integrity import Integrity
    from boltzgen_diffclf.observables.ramachandran import SurfaceAgreement

AGREEMENT_SIGMAS = 3.0
SMALLEST_OVERLAP = 0.03
"""Below this neighbour overlap the BAR error bar is no longer honest (measured on Gaussian work)."""
LARGEST_LEARNED_STDERR_KT = 0.5
"""A learned value with a wider error bar agrees with anything, so it confirms nothing [kT]."""
LARGEST_R_HAT = 1.1
"""Of the slowest watched quantity (Gelman & Rubin 1992); walkers are bootstrapped whole, so error bars allow for it."""
SMALLEST_N_EFFECTIVE = 400.0
LARGEST_RISE = 0.25
"""Of the held-out loss from its lowest value, as a share of its whole drop: the network learns its frames by heart."""
LARGEST_STILL_FALLING = 0.1
"""Of the held-out loss in the last tenth of the steps, as a share of its whole drop: the training was too short."""
LARGEST_REPLICATE_EXCESS = 3.0
SMALLEST_WEIGHTED_SIZE = 100.0
"""Kish's effective size that weighted means want at least (Vehtari et al. 2021, Bayesian Anal. 16:667)."""
LARGEST_UNSEEN_SHARE = 0.01
"""Of the target's mass that weighs more than any sample of the generator."""
SMALLEST_AGREEING_SHARE = 0.9
"""Of the bins of a weighted map that lie within two standard errors of the reference, where 95 % are expected."""
LARGEST_DEVIATION = 4.5
"""Of a bin of a weighted map from the reference [standard errors]."""
LARGEST_BROKEN_SHARE = 0.05
"""Of generated configurations that are broken or mirrored, before weights put that right."""


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
    for row, name in ((classical, "classical yardstick"), (learned, "learned estimator")):
        if row is not None:
            reasons += _poor_overlap(row, name)
    if classical is not None and learned is not None and not reasons:
        reasons += _disagreement(classical, learned)
    if learned is not None and learned.stderr_kT > LARGEST_LEARNED_STDERR_KT:
        reasons.append(
            f"the learned error bar of {learned.stderr_kT:.2g} kT is too wide to confirm anything "
            f"(limit {LARGEST_LEARNED_STDERR_KT} kT): train longer or on more frames"
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


def _poor_overlap(row: EstimatorRow, name: str) -> list[str]:
    if row.overlap is None or row.overlap >= SMALLEST_OVERLAP:
        return []
    return [
        f"the overlap of the {name} is {row.overlap:.2g}, below {SMALLEST_OVERLAP}, so its error bar cannot be "
        "believed: more states between them, or longer sampling, are needed"
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
    name = worst(r_hat)
    return Check(
        f"walkers of {state}",
        r_hat[name] <= LARGEST_R_HAT,
        f"the walkers of {state} disagree, most about {name} (R-hat {r_hat[name]:.3f}, limit {LARGEST_R_HAT}): "
        "sample longer with --frames-per-walker",
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


def check_replicates(name: str, row: EstimatorRow) -> Check:
    """Gate on the error bar covering the scatter of the row's own replicates."""
    values = [value for value in row.replicates if math.isfinite(value)]
    mean = sum(values) / max(len(values), 1)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1))
    expected = row.stderr_kT * math.sqrt(max(len(values), 1))
    return Check(
        f"replicates of {name}",
        len(values) == len(row.replicates) and spread <= LARGEST_REPLICATE_EXCESS * expected,
        f"the {len(row.replicates)} replicates of {name} scatter by {spread:.2g} kT, and their error bar of "
        f"{row.stderr_kT:.2g} kT does not cover that: use more --training-seeds",
    )


def check_weights(name: str, weights: WeightDiagnostics) -> Check:
    """Gate on importance weights: a tail light enough for their number, and enough effective samples."""
    reasons = []
    if not weights.reliable:
        reasons.append(
            f"the Pareto shape of their tail is {weights.pareto_k:.2f} (limit {weights.largest_pareto_k:.2f})"
        )
    if weights.n_effective < SMALLEST_WEIGHTED_SIZE:
        reasons.append(
            f"they are worth {weights.n_effective:.0f} samples (at least {SMALLEST_WEIGHTED_SIZE:.0f} wanted)"
        )
    return Check(
        f"weights of {name}",
        not reasons,
        f"the weights of the {weights.n_samples} samples of {name} cannot be believed: {' and '.join(reasons)}, the "
        f"largest carries {100 * weights.maximum_weight:.3g} %; train longer, draw more samples, or anneal to the "
        "true energy",
    )


def no_weights(name: str, n_samples: int) -> Check:
    """Return the gate that fails where no sample of a generator has any weight."""
    return Check(
        f"weights of {name}",
        False,
        f"none of the {n_samples} samples of {name} has any weight: each is a mirror image, or has no energy; train "
        "longer, or draw more samples",
    )


def fallen_apart(name: str, reason: str) -> Check:
    """Return the gate that fails where a sampler leaves no molecules, and its samples are missing."""
    return Check(f"samples of {name}", False, f"there are no samples of {name}: {reason}")


def check_coverage(name: str, unseen: float) -> Check:
    """Gate on the share of the target's mass that no sample of a generator stands for.

    Args:
        name: of the generator.
        unseen: :func:`~boltzgen_diffclf.observables.unvisited_share`.
    """
    return Check(
        f"coverage of {name}",
        unseen <= LARGEST_UNSEEN_SHARE,
        f"{100 * unseen:.1f} % of the reference is where no weighted sample of {name} is (limit "
        f"{100 * LARGEST_UNSEEN_SHARE:.0f} %): what is missing, weights cannot put right; draw more samples, or train "
        "on frames of all conformers",
    )


def check_conformer(name: str, basin: str, found: Estimate | str, reference: Estimate | str) -> Check:
    """Gate on a conformer's free energy being there where the reference has one, and being the same.

    Args:
        name: of the generator.
        basin: the conformer.
        found: its free energy [kT], or why there is none.
        reference: the same of the reference; where that has none, there is nothing to agree with.
    """
    title = f"conformer {basin} of {name}"
    if isinstance(reference, str):
        return Check(title, True, "")
    if isinstance(found, str):
        return Check(title, False, f"{name} gives no free energy of the conformer '{basin}': {found}")
    difference, combined = found.value - reference.value, math.hypot(found.stderr, reference.stderr)
    return Check(
        title,
        abs(difference) <= AGREEMENT_SIGMAS * combined,
        f"the free energy of the conformer '{basin}' that {name} gives, {found.value:.2f} ± {found.stderr:.2f} kT, "
        f"differs from that of the reference by {difference:+.2f} kT, {abs(difference) / max(combined, 1e-300):.1f} "
        f"combined standard errors (limit {AGREEMENT_SIGMAS:.0f}): draw more samples, or train longer",
    )


def check_map(name: str, found: SurfaceAgreement) -> Check:
    """Gate on a weighted map being that of the reference within the errors of both, bin by bin."""
    worst_bin = "one was never visited" if math.isinf(found.largest) else f"one is {found.largest:.1f} off"
    return Check(
        name,
        found.within >= SMALLEST_AGREEING_SHARE and found.largest <= LARGEST_DEVIATION,
        f"the weighted {name} is not that of the reference: {100 * found.within:.0f} % of its {found.n_bins} bins are "
        f"within two standard errors of it (at least {100 * SMALLEST_AGREEING_SHARE:.0f} % wanted), and {worst_bin} "
        f"(limit {LARGEST_DEVIATION}): draw more samples, or train longer",
    )


def uncorrectable(name: str, basin: str) -> Check:
    """Return the gate that fails where weights learned wrong on purpose cannot be put right."""
    return Check(
        f"weights of {name}",
        False,
        f"{name} has learned '{basin}' too likely and it cannot be corrected: coarse beads have no true energy that "
        "weights could be taken against; use --beads all",
    )


def check_fold(folded: Sequence[float], unfolded: Sequence[float], r_hat: float) -> Check:
    """Gate on walkers that began folded and walkers that did not being folded equally often.

    Args:
        folded: share of its frames that each walker is folded, of those that are in the first frame.
        unfolded: of those that are not.
        r_hat: split R-hat of who is folded, of all walkers.
    """
    name = "fold of the reference"
    if not len(folded) or not len(unfolded):
        began, other = ("folded", "unfolded") if len(folded) else ("unfolded", "folded")
        return Check(
            name,
            False,
            f"all {len(folded) + len(unfolded)} walkers of the reference are {began} in their first frame, so nothing "
            f"shows that walkers that begin {other} would agree: begin walkers at both, and equilibrate them less",
        )
    means = [statistics.fmean(several) for several in (folded, unfolded)]
    difference = means[0] - means[1]
    spread = sum(
        (value - mean) ** 2 for several, mean in zip((folded, unfolded), means, strict=True) for value in several
    )
    variance = spread / max(len(folded) + len(unfolded) - 2, 1) * (1 / len(folded) + 1 / len(unfolded))
    agree = difference == 0 or abs(difference) <= AGREEMENT_SIGMAS * math.sqrt(variance)
    return Check(
        name,
        agree and r_hat <= LARGEST_R_HAT,
        f"walkers of the reference that began folded are folded {100 * means[0]:.3g} % of the time, those that "
        f"began unfolded {100 * means[1]:.3g} % (split R-hat {r_hat:.3g}, limit {LARGEST_R_HAT}): sample longer",
    )


def check_integrity(name: str, found: Integrity) -> Check:
    """Gate on the share of configurations that are not the molecule."""
    return Check(
        f"molecules of {name}",
        found.broken_share <= LARGEST_BROKEN_SHARE,
        f"{100 * found.broken_share:.1f} % of the {found.n_frames} configurations of {name} are not the molecule "
        f"(limit {100 * LARGEST_BROKEN_SHARE:.0f} %): {100 * found.stretched.mean():.1f} % have a broken bond, "
        f"{100 * found.clashing.mean():.1f} % a clash, {100 * found.mirrored.mean():.1f} % the wrong chirality; "
        "train longer",
    )


def check_intact(name: str, what: str, lost: int, total: int) -> Check:
    """Gate on the chains of a sampler that exploded and began again, or its samples that fell apart."""
    return Check(
        f"whole samples of {name}",
        lost <= LARGEST_BROKEN_SHARE * total,
        f"{lost} of the {total} {what} of {name} were lost to holes of the learned energy (limit "
        f"{100 * LARGEST_BROKEN_SHARE:.0f} %): train longer",
    )


def overall(leg_reasons: Mapping[str, Sequence[str]]) -> tuple[bool, tuple[str, ...]]:
    """Return whether every leg is trustworthy, and each reason once, with the legs that it concerns before it."""
    legs_of: dict[str, list[str]] = {}
    for leg, several in leg_reasons.items():
        for reason in several:
            legs_of.setdefault(reason, []).append(leg)
    reasons = tuple(f"{', '.join(legs)}: {reason}" for reason, legs in legs_of.items())
    return not reasons, reasons
