"""What others print for the metrics of the Ramachandran page."""

from __future__ import annotations

from collections.abc import Mapping

from systems.molecular import MolecularSystem

SOURCE = "talk on arXiv:2601.21025"

DIVERGENCES: Mapping[tuple[str, str], tuple[float, float]] = {
    ("dsm", "iid_js"): (0.0081, 0.0003),
    ("dsm", "langevin_js"): (0.0695, 0.0517),
    ("dsm", "iid_pmf_error"): (0.095, 0.003),
    ("dsm", "langevin_pmf_error"): (1.047, 0.924),
    ("fokker_planck", "iid_js"): (0.0082, 0.0002),
    ("fokker_planck", "langevin_js"): (0.0090, 0.0006),
    ("fokker_planck", "iid_pmf_error"): (0.098, 0.003),
    ("fokker_planck", "langevin_pmf_error"): (0.104, 0.004),
    ("dsm_diffclf", "iid_js"): (0.0068, 0.0001),
    ("dsm_diffclf", "langevin_js"): (0.0092, 0.0002),
    ("dsm_diffclf", "iid_pmf_error"): (0.070, 0.002),
    ("dsm_diffclf", "langevin_pmf_error"): (0.094, 0.001),
}
"""Of five beads of alanine dipeptide under amber99sb-ildn and OBC, by objective and metric: mean and scatter of three
seeds (:data:`SOURCE`). The limits of their JS are the smallest and largest angle of both sets, as in the metrics of the
pooled range."""

CHAIN_DIVERGENCES: Mapping[tuple[str, str], tuple[float, float]] = {
    ("dsm", "iid_tica_js"): (0.0036, 0.0001),
    ("dsm", "langevin_tica_js"): (0.4351, 0.0141),
    ("fokker_planck", "iid_tica_js"): (0.0048, 0.0001),
    ("fokker_planck", "langevin_tica_js"): (0.0050, 0.0001),
    ("dsm_diffclf", "iid_tica_js"): (0.0073, 0.0019),
    ("dsm_diffclf", "langevin_tica_js"): (0.0181, 0.0055),
}
"""Of the ten CA beads of chignolin at 340 K, in a plane of slow coordinates: mean and scatter of three seeds
(:data:`SOURCE`). Their trajectories are of another force field, in explicit water."""

MOLECULES = ("aldp", "aldp-ildn")
"""Names of the molecule that :data:`DIVERGENCES` are of."""

GPU_HOURS: Mapping[str, float] = {"dsm": 3.3, "fokker_planck": 8.1, "dsm_diffclf": 5.6}
"""Of their trainings (:data:`SOURCE`)."""


def are_of(system: MolecularSystem, state: str, beads: str, temperature_kelvin: float) -> bool:
    """Return whether :data:`DIVERGENCES` are of this selection of this molecule, in this state."""
    return system.name in MOLECULES and (state, beads, temperature_kelvin) == ("implicit", "backbone", 300.0)


def published_value(
    system: MolecularSystem, state: str, beads: str, temperature_kelvin: float, objective: str, metric: str
) -> float | None:
    """Return the published number of a metric, or None.

    Args:
        system: the molecule; its basins know their own published free energies.
        state: thermodynamic state.
        beads: name of the selection.
        temperature_kelvin: of the samples [K].
        objective: that the energy was learned by.
        metric: as in ``results.csv``.
    """
    if "_delta_f[" in metric:
        basin = metric.split("[", 1)[1].removesuffix("]")
        of_all = system.require_basin(basin).published.get(state, ())
        known = [one.value for one in of_all if one.temperature_kelvin == temperature_kelvin]
        return known[0] if known else None
    if system.name == "chignolin" and (state, beads, temperature_kelvin) == ("implicit", "ca", 340.0):
        found = CHAIN_DIVERGENCES.get((objective, metric))
        return found[0] if found else None
    if not are_of(system, state, beads, temperature_kelvin):
        return None
    if metric.endswith("_js"):  # of fixed limits; theirs have those of the pooled samples
        return None
    found = DIVERGENCES.get((objective, metric.replace("_js_pooled_range", "_js")))
    return found[0] if found else None
