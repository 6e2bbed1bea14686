"""Published numbers stand beside what they are of, and beside nothing else."""

from __future__ import annotations

from dataclasses import replace

import systems
from workflows.ramachandran_published import published_value


def test_published_maps_are_of_the_backbone_of_alanine_dipeptide() -> None:
    aldp, metric = systems.load("aldp"), "langevin_js_pooled_range"
    assert published_value(aldp, "implicit", "backbone", 300.0, "dsm", metric) == 0.0695
    assert published_value(aldp, "implicit", "backbone", 300.0, "dsm", "langevin_js") is None
    assert published_value(aldp, "implicit", "heavy", 300.0, "dsm", metric) is None
    assert published_value(aldp, "vacuum", "backbone", 300.0, "dsm", metric) is None
    assert published_value(aldp, "implicit", "backbone", 350.0, "dsm", metric) is None
    assert published_value(replace(aldp, name="ACE-GLY-NME"), "implicit", "backbone", 300.0, "dsm", metric) is None


def test_published_conformers_are_of_their_temperature() -> None:
    aldp, metric = systems.load("aldp"), "iid_delta_f[phi > 0]"
    assert published_value(aldp, "nonpolar", "all", 300.0, "dsm", metric) == 4.25
    assert published_value(aldp, "nonpolar", "all", 350.0, "dsm", metric) is None
    assert published_value(aldp, "implicit", "all", 300.0, "dsm", metric) is None


def test_published_slow_coordinates_are_of_the_ca_beads_of_chignolin() -> None:
    chignolin, metric = replace(systems.load("aldp"), name="chignolin"), "langevin_tica_js"
    assert published_value(chignolin, "implicit", "ca", 340.0, "dsm", metric) == 0.4351
    assert published_value(chignolin, "implicit", "ca", 340.0, "dsm", "langevin_js") is None
    assert published_value(chignolin, "implicit", "ca", 300.0, "dsm", metric) is None
    assert published_value(chignolin, "vacuum", "ca", 340.0, "dsm", metric) is None
    assert published_value(chignolin, "implicit", "backbone", 340.0, "dsm", metric) is None
    assert published_value(systems.load("aldp"), "implicit", "ca", 340.0, "dsm", metric) is None


def test_the_polar_leg_of_capped_chignolin_has_what_others_print() -> None:
    values = systems.load("chignolin-capped").legs["polar"].published
    assert [(one.value, one.stderr) for one in values] == [(-320.19, None), (-320.02, 0.70)]
    assert systems.load("chignolin").legs["polar"].published == ()
