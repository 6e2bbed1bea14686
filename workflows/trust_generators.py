"""When samples of a learned energy, their weights and what they say of conformers may be believed; one gate each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from workflows.trust import AGREEMENT_SIGMAS, LARGEST_R_HAT, LARGEST_STDERR_KT, Check, check_agreement

if TYPE_CHECKING:
    from boltzgen_diffclf.estimators.estimate import Estimate
    from boltzgen_diffclf.estimators.reweighting import WeightDiagnostics
    from boltzgen_diffclf.observables.integrity import Integrity
    from boltzgen_diffclf.observables.ramachandran import SurfaceAgreement

SMALLEST_WEIGHTED_SIZE = 100.0
"""Kish's effective size that weighted means want at least (Vehtari et al. 2021, Bayesian Anal. 16:667)."""
LARGEST_UNSEEN_SHARE = 0.01
"""Of the target's mass that weighs more than any sample of the generator."""
SMALLEST_AGREEING_SHARE = 0.9
"""Of the bins of a weighted map that lie within two standard errors of the reference, where 95 % are expected."""
LARGEST_DEVIATION = 4.5
"""Of a bin of a weighted map from the reference [standard errors]."""
LARGEST_FAMILY, FEWEST_IN_A_FAMILY = 0.1, 5
"""Share of particles that descend from one: more, and what they say is what one of them says; a few may always."""
FEWEST_WALKERS = 10
"""Worth of the walkers that others are held against, once weights have taken a bias away."""
LARGEST_BROKEN_SHARE = 0.05
"""Of generated configurations that are broken or mirrored, before weights put that right."""


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


def one_family(name: str) -> Check:
    """Return the gate that fails where all samples descend from one: there is no error, and no comparison."""
    return Check(
        f"families of {name}",
        False,
        f"all samples of {name} descend from one, so that nothing said of them has an error: draw more, or "
        "train longer",
    )


def check_families(name: str, largest: float, n_samples: int) -> Check:
    """Gate on the share of weighed particles that descend from one."""
    limit = max(LARGEST_FAMILY, FEWEST_IN_A_FAMILY / n_samples)
    return Check(
        f"largest family of {name}",
        largest <= limit,
        f"{100 * largest:.0f} % of the samples of {name} descend from one particle (limit {100 * limit:.0f} %): the "
        "energy may have a hole at some noise, into which it fell; train longer, or draw more samples",
    )


def check_walkers_left(left: float, n_walkers: int) -> Check:
    """Gate on the effective number of walkers (Kish) whose frames are left without the bias that they had."""
    return Check(
        "walkers without the bias",
        left >= min(FEWEST_WALKERS, 0.5 * n_walkers),
        f"without the bias the weight of {left:.2g} of {n_walkers} held-out walkers is left: take a weaker "
        "--favour-kt, or give frames of the state itself with --reference",
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
    if found.stderr > LARGEST_STDERR_KT:
        return Check(
            title,
            False,
            f"the free energy of the conformer '{basin}' that {name} gives, {found.value:.2f} ± {found.stderr:.2f} kT, "
            f"is too uncertain to confirm anything (limit {LARGEST_STDERR_KT} kT): draw more samples",
        )
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
    worst_bin = (
        "one was never visited" if math.isinf(found.largest) else f"one is {found.largest:.1f} standard errors off"
    )
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


def check_chains(name: str, r_hat: Mapping[str, float]) -> Check:
    """Gate on the largest split R-hat between chains on a learned energy, of all that is watched."""
    advice = "they have not come to rest; take more --frames-per-chain or --equilibration-frames"
    return check_agreement(f"chains of {name}", r_hat, advice)
