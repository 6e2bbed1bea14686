"""Training of energies without noise levels: noise contrast, contrastive divergence, score matching by parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.data_energy import DataEnergyModel
from boltzgen_diffclf.losses import (
    ReplayBuffer,
    contrastive_divergence_loss,
    noise_contrastive_loss,
    reduced_variance_score_matching_loss,
    run_negatives,
)
from boltzgen_diffclf.losses.contrastive_divergence import ReplayInfo, ReplayState
from boltzgen_diffclf.samplers import KernelInfo, Mala, tune_step_size
from boltzgen_diffclf.streams import device_stream
from boltzgen_diffclf.training.clean_data import CleanData
from boltzgen_diffclf.training.loop import LoopSettings
from boltzgen_diffclf.training.problem import Problem


class DataBatch(NamedTuple):
    """Samples of the data and what they are held against.

    Attributes:
        x: the data.
        other: noise, negatives or probes, for each datum one or more.
    """

    x: Float[Tensor, "groups dim"]
    other: Float[Tensor, "groups draws dim"]


@dataclass(frozen=True)
class DataSettings(LoopSettings):
    """How to train an energy without noise levels.

    Attributes:
        groups: samples a step.
        draws: noise samples or probes for each.
        chain_steps: steps of the chains that give negatives.
        chains: that persist.
        noise_ratio: odds of noise in noise contrast; None takes as many as there are draws.
        regulariser: of contrastive divergence, see :func:`contrastive_divergence_loss`. The customary weight of one
            belongs to chains far below the temperature of the energy: at that of ours, hardly a density is left.
    """

    groups: int = 512
    draws: int = 4
    chain_steps: int = 10
    chains: int = 2048
    noise_ratio: float | None = None
    regulariser: float = 0.0


class DataProblem(Problem[DataEnergyModel, DataBatch]):
    """One objective of an energy without noise levels.

    Args:
        like: gives dtype and device of the model.
        data: what is learned from.
        held_out: other samples, never learned from.
        settings: sizes of a batch.

    Attributes:
        learns_normaliser: whether ``log Z`` is learned beside the energy.
    """

    learns_normaliser: ClassVar[bool] = False

    def __init__(self, like: Tensor, data: CleanData, held_out: CleanData, settings: DataSettings) -> None:
        self.like, self.data, self.held_out, self.settings = like, data, held_out, settings
        self.weights = like.new_ones(1)

    @abstractmethod
    def companions(
        self, model: DataEnergyModel, x: Float[Tensor, "groups dim"], generator: torch.Generator
    ) -> Float[Tensor, "groups draws dim"]:
        """Return what the data is held against; may change the state."""

    def held_out_companions(
        self, model: DataEnergyModel, x: Float[Tensor, "groups dim"], generator: torch.Generator
    ) -> Float[Tensor, "groups draws dim"]:
        """Return the same for held-out data, the state left alone."""
        return self.companions(model, x, generator)

    def draw(self, model: DataEnergyModel, generator: torch.Generator) -> DataBatch:
        """See :meth:`Problem.draw`."""
        x = self.data.draw(self.settings.groups, generator).x.to(self.like)
        return DataBatch(x, self.companions(model, x, generator))

    def draw_held_out(self, model: DataEnergyModel, generator: torch.Generator) -> DataBatch:
        """See :meth:`Problem.draw_held_out`."""
        x = self.held_out.draw(self.settings.groups, generator).x.to(self.like)
        return DataBatch(x, self.held_out_companions(model, x, generator))

    def free_energies(self, model: DataEnergyModel) -> Float[Tensor, " levels"]:
        """See :meth:`Problem.free_energies`."""
        return -model.log_normaliser[None]

    @property
    def identity(self) -> Mapping[str, object]:
        """See :attr:`Problem.identity`."""
        return {"objective": self.names[0]}


class NoiseContrast(DataProblem):
    """Noise contrast against the Gaussian of the data; where no odds of noise are given, there are draws for them."""

    names = ("noise_contrast",)
    learns_normaliser = True

    def companions(
        self, model: DataEnergyModel, x: Float[Tensor, "groups dim"], generator: torch.Generator
    ) -> Float[Tensor, "groups draws dim"]:
        """See :meth:`DataProblem.companions`."""
        shape = len(x), self.settings.draws, len(model.data.variance)
        return model.from_gaussian(torch.randn(shape, generator=generator).to(self.like))

    def losses(self, model: DataEnergyModel, batch: DataBatch) -> Float[Tensor, " losses"]:
        """See :meth:`Problem.losses`."""
        noise_density, given = model.gaussian_log_density, self.settings.noise_ratio
        ratio = float(self.settings.draws if given is None else given)
        loss = noise_contrastive_loss(model.energy, noise_density, batch.x, batch.other, model.log_normaliser, ratio)
        return loss.mean()[None]

    def evaluations(self, model: DataEnergyModel) -> int:
        """See :meth:`Problem.evaluations`."""
        return self.settings.groups * (1 + self.settings.draws)


class SlicedScoreMatching(DataProblem):
    """Score matching by parts along random signs."""

    names = ("sliced_score_matching",)

    def companions(
        self, model: DataEnergyModel, x: Float[Tensor, "groups dim"], generator: torch.Generator
    ) -> Float[Tensor, "groups draws dim"]:
        """See :meth:`DataProblem.companions`."""
        return torch.randn(len(x), self.settings.draws, x.shape[1], generator=generator).sign().to(self.like)

    def losses(self, model: DataEnergyModel, batch: DataBatch) -> Float[Tensor, " losses"]:
        """See :meth:`Problem.losses`."""
        probes = batch.other.transpose(0, 1)
        return reduced_variance_score_matching_loss(model.energy, batch.x, probes).mean()[None]

    def evaluations(self, model: DataEnergyModel) -> int:
        """See :meth:`Problem.evaluations`."""
        return self.settings.groups * (2 + 2 * self.settings.draws)


class ContrastiveDivergence(DataProblem):
    """Contrastive divergence from the data, CD-k; the step size follows the acceptance of the chains."""

    names = ("contrastive_divergence",)

    def __init__(self, like: Tensor, data: CleanData, held_out: CleanData, settings: DataSettings) -> None:
        super().__init__(like, data, held_out, settings)
        self.step_size = like.new_tensor([0.1])

    def companions(
        self, model: DataEnergyModel, x: Float[Tensor, "groups dim"], generator: torch.Generator
    ) -> Float[Tensor, "groups draws dim"]:
        """See :meth:`DataProblem.companions`."""
        negatives, info = self._run(model, x, generator)
        self.follow(info)
        return negatives[:, None]

    def held_out_companions(
        self, model: DataEnergyModel, x: Float[Tensor, "groups dim"], generator: torch.Generator
    ) -> Float[Tensor, "groups draws dim"]:
        """See :meth:`DataProblem.held_out_companions`."""
        return self._run(model, x, generator)[0][:, None]

    def losses(self, model: DataEnergyModel, batch: DataBatch) -> Float[Tensor, " losses"]:
        """See :meth:`Problem.losses`."""
        loss = contrastive_divergence_loss(model.energy, batch.x, batch.other[:, 0], self.settings.regulariser)
        return loss.mean()[None]

    def evaluations(self, model: DataEnergyModel) -> int:
        """See :meth:`Problem.evaluations`: the chains take an energy and a gradient a step, and at their start."""
        return self.settings.groups * (2 + 2 * (1 + self.settings.chain_steps))

    @property
    def state(self) -> Mapping[str, Tensor]:
        """See :attr:`Problem.state`."""
        return {"step_size": self.step_size}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Problem.restore`."""
        self.step_size = state["step_size"].to(self.like)

    def kernel(self, model: DataEnergyModel) -> Mala:
        """Return the moves of the chains, in units of the data's variance."""
        return Mala(self.step_size, model.data.variance.mean())

    def follow(self, info: KernelInfo) -> None:
        """Adapt the step size to the acceptance of the chains."""
        level = torch.zeros(len(info.acceptance), dtype=torch.long, device=info.acceptance.device)
        self.step_size = tune_step_size(self.step_size, info.acceptance, level)

    def _run(self, model: DataEnergyModel, x: Tensor, generator: torch.Generator) -> tuple[Tensor, KernelInfo]:
        chain_stream = device_stream(generator, x.device)
        return run_negatives(model.energy, self.kernel(model), x, self.settings.chain_steps, chain_stream)


class PersistentContrastiveDivergence(ContrastiveDivergence):
    """Contrastive divergence from chains that go on, 5 % of them afresh from the data's Gaussian at every step."""

    names = ("persistent_contrastive_divergence",)

    def __init__(self, like: Tensor, data: CleanData, held_out: CleanData, settings: DataSettings) -> None:
        super().__init__(like, data, held_out, settings)
        self.position: Tensor | None = None

    def companions(
        self, model: DataEnergyModel, x: Float[Tensor, "groups dim"], generator: torch.Generator
    ) -> Float[Tensor, "groups draws dim"]:
        """See :meth:`DataProblem.companions`."""
        state, info = self._go_on(model, len(x), generator)
        self.position = state.position
        self.follow(info.kernel)
        return info.negatives[:, None]

    def held_out_companions(
        self, model: DataEnergyModel, x: Float[Tensor, "groups dim"], generator: torch.Generator
    ) -> Float[Tensor, "groups draws dim"]:
        """See :meth:`DataProblem.held_out_companions`; the chains themselves stay where they are."""
        return self._go_on(model, len(x), generator)[1].negatives[:, None]

    @property
    def state(self) -> Mapping[str, Tensor]:
        """See :attr:`Problem.state`."""
        chains = {} if self.position is None else {"position": self.position}
        return {**super().state, **chains}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Problem.restore`."""
        super().restore(state)
        self.position = state["position"].to(self.like)

    def _go_on(self, model: DataEnergyModel, n: int, generator: torch.Generator) -> tuple[ReplayState, ReplayInfo]:
        position = self._start(model, self.settings.chains, generator) if self.position is None else self.position
        buffer = ReplayBuffer(self.kernel(model), self.settings.chain_steps)
        fresh = self._start(model, n, generator)
        return buffer.step(model.energy, ReplayState(position), fresh, device_stream(generator, position.device))

    def _start(self, model: DataEnergyModel, n: int, generator: torch.Generator) -> Tensor:
        return model.from_gaussian(torch.randn(n, len(model.data.variance), generator=generator).to(self.like))


@dataclass(frozen=True)
class DataObjective:
    """A problem, and the sizes that are part of its name.

    Attributes:
        problem: what is minimised.
        draws: noise samples or probes for each datum; None leaves it to the settings.
        chain_steps: of the chains that give negatives; None leaves it to the settings.
        noise_ratio: odds of noise in noise contrast; None leaves it to the settings.
    """

    problem: type[DataProblem]
    draws: int | None = None
    chain_steps: int | None = None
    noise_ratio: float | None = None

    def settled(self, settings: DataSettings) -> DataSettings:
        """Return the settings with the sizes that the objective has."""
        return replace(
            settings,
            draws=settings.draws if self.draws is None else self.draws,
            chain_steps=settings.chain_steps if self.chain_steps is None else self.chain_steps,
            noise_ratio=settings.noise_ratio if self.noise_ratio is None else self.noise_ratio,
        )
