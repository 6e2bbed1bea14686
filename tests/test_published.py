"""Published numbers stand beside what they are of, and beside nothing else."""

from __future__ import annotations

from dataclasses import replace

import systems
from workflows.ramachandran_published import published_value


def test_published_maps_are_of_the_backbone_of_alanine_dipeptide() -> None:
    aldp = systems.load("aldp")
    assert published_value(aldp, "implicit", "backbone", "dsm", "langevin_js") == 0.0695
    assert published_value(aldp, "implicit", "heavy", "dsm", "langevin_js") is None
    assert published_value(aldp, "vacuum", "backbone", "dsm", "langevin_js") is None
    assert published_value(replace(aldp, name="ACE-GLY-NME"), "implicit", "backbone", "dsm", "langevin_js") is None


def test_published_slow_coordinates_are_of_the_ca_beads_of_chignolin() -> None:
    chignolin = replace(systems.load("aldp"), name="chignolin")
    assert published_value(chignolin, "implicit", "ca", "dsm", "langevin_tica_js") == 0.4351
    assert published_value(chignolin, "implicit", "ca", "dsm", "langevin_js") is None
    assert published_value(chignolin, "implicit", "backbone", "dsm", "langevin_tica_js") is None
    assert published_value(systems.load("aldp"), "implicit", "backbone", "dsm", "langevin_tica_js") is None
