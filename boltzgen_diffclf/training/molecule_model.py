"""Noised energies of molecules: how they are laid out for their data, and the one file that a trained one is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.coordinates import CentredCoordinates, kabsch_align, remove_mean
from boltzgen_diffclf.data_gaussian import DataGaussian, data_resolution
from boltzgen_diffclf.errors import InputError, UnreadableError
from boltzgen_diffclf.nets import DenseEnergyNet, EquivariantConfig, MlpEnergyNet
from boltzgen_diffclf.nets.flat_molecule import CentredMoleculeNet
from boltzgen_diffclf.nets.invariants import (
    HarmonicEnergyNet,
    InvariantEnergyNet,
    InvariantMoments,
    NoisedInvariants,
    invariant_moments,
    principal_modes,
    squared_distances,
    volume_quadruples,
)
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import PATHS, log_snr_levels
from boltzgen_diffclf.training.checkpoint import load_checkpoint, save_checkpoint
from boltzgen_diffclf.training.clean_data import CleanSamples, FixedPool

NETWORKS: Mapping[str, str] = {
    "invariants": "standardised distances and signed volumes",
    "equivariant": "message passing on positions, conditioned on atom types and bonds",
    "both": "their sum",
    "harmonic": "the same distances and volumes, beside a quadratic form of them",
}
"""Networks by name, each with what it sees."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
"""How files of frames begin."""

KIND = "noised energy of a molecule"

FORMAT = 4
"""Of the file: what a model is made of changes it."""


@dataclass(frozen=True)
class MoleculeStatistics:
    """What the layout of a model takes from its data; the unit of everything but ``length_nm`` is that length.

    The density of a molecule does not change when it is turned, so nothing here may know directions: the mean is zero,
    and the covariance ``K x I_3``. Of the matrices ``K`` over atoms that leaves, a multiple of the identity is taken:
    whitening by another would mix atoms, and what enters the network would no longer have distances and angles.

    Attributes:
        length_nm: root mean square of a degree of freedom [nm].
        resolution: width below which the data has no structure.
        distances: of every pair of atoms, see :class:`~boltzgen_diffclf.nets.invariants.InvariantMoments`.
        volumes: of four atoms each, see there.
        modes: weights of the atoms, see :func:`~boltzgen_diffclf.nets.invariants.principal_modes`.
        mode_volumes: of three modes each.
    """

    length_nm: float
    resolution: float
    distances: tuple[tuple[float, ...], ...]
    volumes: tuple[tuple[float, ...], ...]
    modes: tuple[tuple[float, ...], ...] = ()
    mode_volumes: tuple[tuple[float, ...], ...] = ((), (), (), ())


@dataclass(frozen=True)
class MoleculeSpec:
    """What has to be known to make a model before its weights are read.

    Attributes:
        types: an integer an atom.
        bonds: pairs of bonded atoms.
        path: one of ``PATHS``.
        levels: of noise, evenly spaced in log-SNR: a level of 128 even in time would leap over all bonds at once.
            Training adds others where these are far apart, see
            :data:`~boltzgen_diffclf.training.noised_training.LARGEST_GAP`.
        network: one of :data:`NETWORKS`.
        hidden: width of the network of invariants.
        layers: its hidden layers.
        message_hidden: width of message passing.
        message_layers: its exchanges.
    """

    types: tuple[int, ...]
    bonds: tuple[tuple[int, int], ...]
    path: str = "vp"
    levels: int = 128
    network: str = "invariants"
    hidden: int = 128
    layers: int = 3
    message_hidden: int = 32
    message_layers: int = 2

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.types)


def measure_molecule(
    x: Float[Tensor, "frames atoms 3"], bonds: Sequence[tuple[int, int]], generator: torch.Generator
) -> MoleculeStatistics:
    """Return the statistics of positions [nm] in any orientation.

    Their resolution is the least of two widths: that of :func:`data_resolution` once all frames lie on the first one,
    else it would see how far they are turned; and that of the stiffest distance, along each of its two atoms.

    Args:
        x: frames that a model is to learn.
        bonds: pairs of bonded atoms.
        generator: chooses the probes of the resolution.
    """
    centred = remove_mean(x.double())
    dimension = 3 * (x.shape[1] - 1)
    length = float((centred.square().sum((1, 2)).mean() / dimension).sqrt())
    coordinates = CentredCoordinates(x.shape[1], length).double()
    laid = coordinates.from_cartesian(kabsch_align(centred, centred[:1]))
    stiffest = float(squared_distances(centred / length).sqrt().std(0).min()) / math.sqrt(2)
    modes = principal_modes(centred / length)
    moments = invariant_moments(centred / length, volume_quadruples(x.shape[1], bonds), modes)
    return MoleculeStatistics(
        length_nm=length,
        resolution=min(data_resolution(laid, generator), stiffest),
        distances=tuple(map(tuple, moments.distances.tolist())),
        volumes=tuple(map(tuple, moments.volumes.tolist())),
        modes=tuple(map(tuple, modes.tolist())),
        mode_volumes=tuple(map(tuple, moments.mode_volumes.tolist())),
    )


def build_molecule_model(
    spec: MoleculeSpec, statistics: MoleculeStatistics, generator: torch.Generator
) -> NoisedEnergyModel:
    """Return a fresh model of centred coordinates, in single precision; its net's ``coordinates`` lead there.

    Raises:
        InputError: an unknown path or network.
    """
    for name, known in ((spec.path, PATHS), (spec.network, NETWORKS)):
        if name not in known:
            raise InputError(f"a model cannot be made with '{name}': choose one of {', '.join(known)}")
    coordinates = CentredCoordinates(spec.n_atoms, statistics.length_nm)
    molecule, invariants = None, None
    if spec.network in ("equivariant", "both"):
        config = EquivariantConfig(hidden=spec.message_hidden, layers=spec.message_layers, radial=32)
        molecule = DenseEnergyNet(spec.types, spec.bonds, generator, config)
    path = PATHS[spec.path]
    data = DataGaussian(torch.zeros(coordinates.dimension), torch.ones(()), sites=coordinates.basis)
    levels = log_snr_levels(path, spec.levels)
    if spec.network != "equivariant":
        floor = 2 * torch.tensor(statistics.resolution).log()
        first, last = (-torch.logaddexp(-path.log_snr(levels[[0, -1]]), floor)).tolist()
        seen = NoisedInvariants(
            spec.n_atoms,
            volume_quadruples(spec.n_atoms, spec.bonds),
            torch.tensor(statistics.modes).reshape(-1, spec.n_atoms),
            InvariantMoments(
                torch.tensor(statistics.distances),
                torch.tensor(statistics.volumes),
                torch.tensor(statistics.mode_volumes),
            ),
            (first, last),
        )
        size: dict[str, int] = {"hidden": spec.hidden, "layers": spec.layers}
        if spec.network == "harmonic":
            energy: nn.Module = HarmonicEnergyNet(seen.n_features, generator, **size)
        else:
            energy = MlpEnergyNet(seen.n_features, generator, **size)
        invariants = InvariantEnergyNet(seen, energy)
    net = CentredMoleculeNet(coordinates, molecule, invariants)
    return NoisedEnergyModel(net, path, data, levels.float(), statistics.resolution)


def coordinates_of(model: NoisedEnergyModel) -> CentredCoordinates:
    """Return the coordinates of a model made here, in its precision."""
    return cast(CentredMoleculeNet, model.net).coordinates


def molecule_pool(
    x: Float[Tensor, "frames atoms 3"],
    coordinates: CentredCoordinates,
    force: Float[Tensor, "frames atoms 3"] | None = None,
    beyond: tuple[Float[Tensor, "hot atoms 3"], Float[Tensor, "hot atoms 3"]] | None = None,
) -> FixedPool:
    """Return frames [nm] as clean samples of centred coordinates; the scores are zeros where forces are not given.

    They stay as they are turned: energies that do not change with a rotation, under noise that has no direction, learn
    the same from every orientation.

    Args:
        x: frames of all atoms, or of some.
        coordinates: of these.
        force: on these atoms [kT/nm]. On some of the atoms it is one draw of what the others do, and right on average.
        beyond: frames that spread farther than these, and the forces on them.
    """
    others = None if beyond is None else _clean_samples(*beyond, coordinates)
    return FixedPool(_clean_samples(x, force, coordinates), others)


def _clean_samples(x: Tensor, force: Tensor | None, coordinates: CentredCoordinates) -> CleanSamples:
    y = coordinates.from_cartesian(x.to(coordinates.length_nm))
    if force is None:
        return CleanSamples(y, y.new_zeros(1).expand_as(y))
    # dx/dy of the orthonormal basis is the length, and from_cartesian divides by it once.
    return CleanSamples(y, coordinates.length_nm**2 * coordinates.from_cartesian(force.to(y)))


@dataclass(frozen=True, eq=False)
class MoleculeModel:
    """A trained energy with what a user of it has to know.

    Attributes:
        model: in float64 and evaluation state.
        spec: of its layout.
        statistics: of its data.
        origin: system, state, beads, temperature and training; plain values.
    """

    model: NoisedEnergyModel
    spec: MoleculeSpec
    statistics: MoleculeStatistics
    origin: Mapping[str, Any]

    @property
    def coordinates(self) -> CentredCoordinates:
        """From positions [nm] to what the model takes, in its precision."""
        return coordinates_of(self.model)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        content = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            content.update(name.encode() + tensor.cpu().numpy().tobytes())
        return content.hexdigest()

    def require(self, **wanted: object) -> None:
        """Raise an InputError unless the model is of this system, state, beads or temperature.

        Args:
            wanted: by the key of :attr:`origin`; None is any.
        """
        for key, value in wanted.items():
            if value is not None and self.origin.get(key) != value:
                raise InputError(
                    f"the model is of {key.replace('_', ' ')} {self.origin.get(key)}, not {value}: "
                    "give the model that was trained for it"
                )

    def save(self, path: Path | str) -> None:
        """Write the model, whole or not at all.

        Raises:
            RunFailedError: the disk refuses.
        """
        metadata = {
            "identity": {"kind": KIND, "format": FORMAT, **self.origin},
            "spec": asdict(self.spec),
            "statistics": asdict(self.statistics),
        }
        save_checkpoint(Path(path), self.model.state_dict(), metadata)


def load_molecule_model(path: Path | str) -> MoleculeModel:
    """Return the model that :meth:`MoleculeModel.save` wrote.

    Raises:
        InputError: missing, truncated, of another version, or no model of a molecule.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the model.safetensors in it")
    if not path.is_file():
        raise InputError(f"there is no model {path}: train one with workflows.train, or check the path")
    with path.open("rb") as file:
        if file.read(len(_HDF5)) == _HDF5:
            raise InputError(f"{path} holds frames, not a model: give the model.safetensors of a training")
    try:
        tensors, metadata = load_checkpoint(path, {})
    except UnreadableError as error:
        raise InputError(
            f"{path} cannot be read as a trained model: give the model.safetensors of a training"
        ) from error
    origin = dict(metadata["identity"])
    if origin.pop("kind", None) != KIND:
        raise InputError(
            f"{path} is the state of a training, not a trained model: give the model.safetensors beside it"
        )
    if origin.pop("format", None) != FORMAT:
        raise InputError(
            f"{path} was written by another version of this package: train the model again, with another --out"
        )
    given = metadata["spec"]
    bonds = tuple((int(first), int(second)) for first, second in given["bonds"])
    spec = MoleculeSpec(**{**given, "types": tuple(given["types"]), "bonds": bonds})
    found = metadata["statistics"]
    # Tables come as lists.
    tables = {key: tuple(map(tuple, value)) for key, value in found.items() if isinstance(value, list)}
    statistics = MoleculeStatistics(**{**found, **tables})
    model = build_molecule_model(spec, statistics, torch.Generator()).double()
    model.set_levels(tensors["curve.levels"])  # Training gave it others than its layout has.
    model.load_state_dict(tensors)
    return MoleculeModel(model.eval().requires_grad_(False), spec, statistics, origin)
