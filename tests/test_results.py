import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.reweighting import diagnose_weights
from boltzgen_diffclf.observables.ramachandran import SurfaceAgreement
from tests.report_example import result
from workflows import results, trust, trust_generators
from workflows.results import EstimatorRow, SolvationResult, judged, most_precise
from workflows.run_folder import StageResult
from workflows.solvation_rows import learned_rows

CLASSICAL = EstimatorRow(-22.406, 0.009, 0.041, 25000.0, 100000, 0, 40.0, "classical")
LEARNED = EstimatorRow(-22.37, 0.04, None, 8000.0, 60000, 10**6, 130.0, "learned", (-22.40, -22.38, -22.33))


def test_json_gives_the_same_result_back():
    original = result(("why",))
    again = SolvationResult.from_json(original.to_json())
    assert again.to_json() == original.to_json()
    assert again.legs["polar"] == dataclasses.replace(original.legs["polar"], estimators=again.legs["polar"].estimators)
    assert again.legs["polar"].estimators["bar"] == original.legs["polar"].estimators["bar"]
    assert math.isnan(again.legs["polar"].estimators["no_network"].value_kT)
    assert again.legs["polar"].estimators["dsm_diffclf"].overlap is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_json_exactly(value):
    row = dataclasses.replace(CLASSICAL, value_kT=value)
    leg = dataclasses.replace(result().legs["total"], estimators={"bar": row})
    again = SolvationResult.from_json(dataclasses.replace(result(), legs={"total": leg}).to_json())
    assert again.legs["total"].estimators["bar"].value_kT == value


def test_the_names_that_others_rely_on_are_in_the_json():
    content = json.loads(result().to_json())
    names = {
        "schema_version",
        "system",
        "temperature_kelvin",
        "seed",
        "trustworthy",
        "reasons",
        "legs",
        "versions",
    }
    assert names <= set(content)
    leg = content["legs"]["total"]
    assert {"value_kT", "stderr_kT"} <= set(leg["headline"])
    row = {
        "value_kT",
        "stderr_kT",
        "overlap",
        "n_effective",
        "energy_evaluations",
        "network_evaluations",
        "seconds",
    }
    assert row <= set(leg["estimators"]["bar"])
    assert leg["estimators"]["no_network"]["value_kT"] is None


def paths(value, path=""):
    """Return every key path, names inside an object of names replaced by a star."""
    found = {path.lstrip(".")} if path else set()
    starred = path.rsplit(".", 1)[-1] in ("legs", "estimators")
    if isinstance(value, dict) and not path.endswith((".versions", ".settings")):
        for key, item in value.items():
            found |= paths(item, f"{path}.{'*' if starred else key}")
    elif isinstance(value, list):
        for item in value:
            found |= paths(item, f"{path}.*") if isinstance(item, dict) else set()
    return found


def test_the_documented_schema_is_the_schema():
    rows = results.__doc__.split("\n====")[2].splitlines()[1:]
    documented = {row.split()[0] for row in rows}
    written = {path for path in paths(json.loads(result(("why",)).to_json())) if not path.endswith("*")}
    assert documented == written


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.update(schema_version=99), "schema version 99"),
        (lambda content: content.pop("schema_version"), "no results.json"),
        (lambda content: content["legs"]["total"].pop("states"), "damaged at legs.total.states"),
    ],
)
def test_a_wrong_file_is_refused(change, expected):
    content = json.loads(result().to_json())
    change(content)
    with pytest.raises(InputError, match=expected):
        SolvationResult.from_json(json.dumps(content))
    with pytest.raises(InputError, match=r"no results\.json"):
        SolvationResult.from_json("{")


def test_agreement_with_overlap_names_the_value():
    assert trust.decide(CLASSICAL, LEARNED) == (True, ())


@pytest.mark.parametrize(
    ("classical", "learned", "expected"),
    [
        (CLASSICAL, dataclasses.replace(LEARNED, value_kT=-22.25), "combined standard errors"),
        (dataclasses.replace(CLASSICAL, overlap=0.029), LEARNED, "overlap of the classical yardstick is 0.029"),
        (CLASSICAL, dataclasses.replace(LEARNED, overlap=math.nan), "overlap of the learned"),
        (CLASSICAL, dataclasses.replace(LEARNED, stderr_kT=0.7), "learned error bar of 0.7 kT is too wide to confirm"),
        (dataclasses.replace(CLASSICAL, stderr_kT=0.9), LEARNED, "classical error bar of 0.9 kT is too wide"),
        (CLASSICAL, dataclasses.replace(LEARNED, stderr_kT=0.0), "no estimate"),
        (dataclasses.replace(CLASSICAL, value_kT=math.nan), LEARNED, "no estimate"),
        (CLASSICAL, None, "learned estimator was not run"),
        (None, LEARNED, "classical yardstick was not run"),
    ],
)
def test_each_failure_gives_its_one_sentence(classical, learned, expected):
    trustworthy, reasons = trust.decide(classical, learned)
    assert not trustworthy
    assert len(reasons) == 1
    assert expected in reasons[0]


def test_the_limit_is_three_combined_errors():
    combined = math.hypot(0.009, 0.04)
    for sigmas, agrees in ((2.99, True), (3.01, False)):
        learned = dataclasses.replace(LEARNED, value_kT=CLASSICAL.value_kT + sigmas * combined)
        assert trust.decide(CLASSICAL, learned)[0] is agrees


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [
        (
            trust.check_walkers("vacuum", {"cos_phi": 1.01, "energy": 1.0}),
            trust.check_walkers("vacuum", {"energy": 1.0, "sin_phi": 1.2, "cos_phi": 1.2}),
            "disagree, most about cos_phi (R-hat 1.200",
        ),
        (
            trust.check_walkers("vacuum", {"cos_phi": 1.01}),
            trust.check_walkers("vacuum", {"cos_phi": 1.01, "energy": math.nan}),
            "about energy (R-hat nan",
        ),
        (
            trust_generators.check_intact("langevin", "chains", 5, 100),
            trust_generators.check_intact("langevin", "chains", 6, 100),
            "6 of the 100 chains of langevin were lost",
        ),
        (trust.check_samples("implicit", 4000), trust.check_samples("implicit", 80), "only 80 independent"),
        (trust.check_overfit("a", [3.0, 2.0, 2.1]), trust.check_overfit("a", [3.0, 2.0, 2.5]), "overfitted"),
        (trust.check_trained("a", [3.0, 2.02, 2.0]), trust.check_trained("a", [3.0, 2.5, 2.0]), "undertrained"),
    ],
)
def test_each_gate_closes(good, bad, expected):
    assert good.passed
    assert trust.decide(CLASSICAL, LEARNED, [good])[0]
    trustworthy, reasons = trust.decide(CLASSICAL, LEARNED, [good, bad])
    assert not trustworthy
    assert reasons == (bad.sentence,)
    assert expected in reasons[0]


def test_a_leg_with_reasons_names_nothing():
    leg = result().legs["total"]
    assert leg.headline.value_kT == leg.estimators["bar"].value_kT
    refused = judged(leg, "bar", "dsm_diffclf", ("why",))
    assert refused.headline is None
    assert refused.reasons == ("why",)
    assert trust.overall({"total": ("why",), "polar": ()}) == (False, ("total: why",))
    assert trust.overall({"polar": ()}) == (True, ())


def test_the_most_precise_row_of_a_kind_has_a_value():
    estimators = result().legs["total"].estimators
    assert most_precise(estimators, "classical") == "bar"
    assert most_precise(estimators, "learned") == "dsm_diffclf"
    assert most_precise({"x": estimators["no_network"]}, "ablation") is None


def test_weights_that_rest_on_few_samples_fail():
    """Even weights pass; a heavy tail and a small effective size are each named with the limit."""
    rng = np.random.default_rng(0)
    even = trust_generators.check_weights("generator", diagnose_weights(0.3 * rng.normal(size=5000)))
    assert trust.failures([even]) == ()
    heavy = diagnose_weights(1.2 * rng.exponential(size=5000))
    few = diagnose_weights(0.3 * rng.normal(size=60))
    tail, size = trust.failures([trust_generators.check_weights("generator", found) for found in (heavy, few)])
    assert "(limit 0.70)" in tail
    assert "(at least 100 wanted)" in size
    assert "5000 samples of generator" in tail


def test_a_missing_conformer_fails():
    assert trust.failures([trust_generators.check_coverage("generator", 0.002)]) == ()
    (sentence,) = trust.failures([trust_generators.check_coverage("generator", 0.25)])
    assert "25.0 % of the reference is where no weighted sample of generator is" in sentence


def test_a_conformer_without_a_free_energy_fails():
    reference = Estimate(4.0, 0.3, None, 100.0, "population")
    (sentence,) = trust.failures(
        [trust_generators.check_conformer("generator", "phi > 0", "it was never seen", reference)]
    )
    assert sentence == "generator gives no free energy of the conformer 'phi > 0': it was never seen"


def test_a_conformer_has_to_weigh_what_it_does_in_the_reference():
    reference, near, far = (
        Estimate(4.0, 0.3, None, 100.0, "population"),
        Estimate(5.4, 0.4, None, 100.0, "population"),
        Estimate(5.6, 0.4, None, 100.0, "population"),
    )
    assert trust.failures([trust_generators.check_conformer("generator", "phi > 0", near, reference)]) == ()
    assert trust.failures([trust_generators.check_conformer("generator", "phi > 0", far, "it was never seen")]) == ()
    (sentence,) = trust.failures([trust_generators.check_conformer("generator", "phi > 0", far, reference)])
    assert "5.60 ± 0.40 kT, differs from that of the reference by +1.60 kT, 3.2 combined" in sentence
    vague = Estimate(5.0, 0.9, None, 10.0, "population")
    (sentence,) = trust.failures([trust_generators.check_conformer("generator", "phi > 0", vague, reference)])
    assert "5.00 ± 0.90 kT, is too uncertain to confirm anything (limit 0.5 kT)" in sentence
    assert trust.failures([trust_generators.check_conformer("generator", "phi > 0", far, vague)]) == ()


def replicates_of(classes: Estimate, integral: float = -22.40) -> list[StageResult]:
    """Return two replicates whose integrals and classes by exact ends say this."""

    def facts(value: float, stderr: float, overlap: float | None) -> dict[str, float | None]:
        counts = {"energy_evaluations": 1, "network_evaluations": 1, "seconds": 1.0}
        return {"value": value, "sampling_stderr": stderr, "overlap": overlap, "n_effective": 100.0, **counts}

    ends = facts(classes.value, classes.stderr, classes.overlap)
    return [StageResult(facts={"dsm_diffclf": facts(integral, 0.05, None), "exact_ends": ends}) for _ in range(2)]


def test_the_integral_is_no_better_than_the_classes_that_it_is_held_against():
    good = learned_rows(replicates_of(Estimate(-22.41, 0.05, 0.2, 100.0, "MBAR")), 1000.0)["dsm_diffclf"]
    assert trust.decide(CLASSICAL, good) == (True, ())
    assert good.overlap == 0.2
    apart = learned_rows(replicates_of(Estimate(-22.41, 0.05, 0.01, 100.0, "MBAR")), 1000.0)["dsm_diffclf"]
    (reason,) = trust.decide(CLASSICAL, apart)[1]
    assert "overlap of the learned estimator is 0.01" in reason
    nobody = learned_rows(replicates_of(Estimate(-22.41, math.inf, 1e-12, 0.0, "MBAR")), 1000.0)["dsm_diffclf"]
    assert "no estimate" in trust.decide(CLASSICAL, nobody)[1][0]


def test_a_weighted_map_has_to_be_that_of_the_reference():
    for good in (SurfaceAgreement(200, 0.9, 4.5), SurfaceAgreement(200, 0.96, 3.0)):
        assert trust.failures([trust_generators.check_map("map of generator", good)]) == ()
    for bad in (SurfaceAgreement(200, 0.89, 3.0), SurfaceAgreement(200, 0.97, 4.6), SurfaceAgreement(9, 1.0, math.inf)):
        assert len(trust.failures([trust_generators.check_map("map of generator", bad)])) == 1


def test_a_generator_without_weights_fails():
    (sentence,) = trust.failures([trust_generators.no_weights("generator", 30)])
    assert "none of the 30 samples of generator has any weight" in sentence
