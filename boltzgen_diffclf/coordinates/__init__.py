"""Coordinates: internal coordinates with their Jacobian, the centroid-free space, alignment and pairing."""

from boltzgen_diffclf.coordinates.arc import Arc, TorsionArc
from boltzgen_diffclf.coordinates.centred import CentredCoordinates
from boltzgen_diffclf.coordinates.frame import (
    chirality,
    kabsch_align,
    log_normal_centred,
    remove_mean,
    sample_centred_noise,
)
from boltzgen_diffclf.coordinates.internal import InternalCoordinates
from boltzgen_diffclf.coordinates.pairing import aligned_cost, pair_by_transport, torsion_cost
from boltzgen_diffclf.coordinates.rotors import match_rotors
from boltzgen_diffclf.coordinates.scaling import ScaledInternal
from boltzgen_diffclf.coordinates.tree import Placement, ZMatrix, build_tree

__all__ = [
    "Arc",
    "CentredCoordinates",
    "InternalCoordinates",
    "Placement",
    "ScaledInternal",
    "TorsionArc",
    "ZMatrix",
    "aligned_cost",
    "build_tree",
    "chirality",
    "kabsch_align",
    "log_normal_centred",
    "match_rotors",
    "pair_by_transport",
    "remove_mean",
    "sample_centred_noise",
    "torsion_cost",
]
