"""One objective and one seed of ``workflows.ramachandran``: its training, its samples, its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from boltzgen_diffclf.errors import FallenApartError
from boltzgen_diffclf.favouring import sum_of
from boltzgen_diffclf.observables import surface_agreement
from boltzgen_diffclf.training.molecule_model import MoleculeModel
from systems.ensemble import ReferenceEnsemble, evaluate
from systems.favoured import Favour, biases_of
from systems.store import load_ensemble
from workflows import trust, trust_generators
from workflows.learned_molecule import learned_target
from workflows.molecule_stages import MoleculeStages, stage_of_training
from workflows.ramachandran import LEARNED_FROM, REFERENCE, RamachandranConfig
from workflows.ramachandran_folding import FoldedStarts
from workflows.ramachandran_measures import Judge
from workflows.ramachandran_metrics import Findings, Measured, chain_metrics, weight_metrics
from workflows.ramachandran_planes import Plane
from workflows.ramachandran_samples import Sample
from workflows.sample import SMC, lost_of, sampled
from workflows.weighted_ensemble import WeightedEnsemble
from workflows.weighted_sampling import WeightedSampling, WeightedSizes, shares_of

SAMPLERS: Mapping[str, str] = {"reverse": "iid", "langevin": "langevin", SMC: SMC}
"""Where samples come from, each with what its metrics begin with."""

REWEIGHTED = "reweighted"
"""What the metrics of weighted samples begin with."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What the samplers of one energy left.

    Attributes:
        samples: by label.
        fallen: by label, why there are none.
        lost: by label, what a sampler makes, how many of them a hole of the energy took, and of how many.
        alone: labels of samples that all descend from one, which are not shown.
    """

    samples: dict[str, Sample] = field(default_factory=dict)
    fallen: dict[str, str] = field(default_factory=dict)
    lost: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    alone: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Shown:
    """What the page shows of one objective and seed.

    Attributes:
        judge: the reference and how samples are compared with it.
        samples: by label, the reference first.
        findings: the same.
        weighted: the weights, where all atoms are learned.
        starts: who is folded of the walkers of the whole reference, where the molecule has a fold.
        drawn: what became of the samplers.
    """

    judge: Judge
    samples: Mapping[str, Sample]
    findings: Mapping[str, Findings]
    weighted: WeightedEnsemble | None
    starts: FoldedStarts | None
    drawn: Drawn


@dataclass(frozen=True)
class JudgedRun:
    """From a training to its numbers.

    Attributes:
        config: settings.
        stages: of the frames that are learned from.
        reference: frames that samples are compared with.
        planes: that maps are drawn over.
        starts: who is folded of the walkers of the whole reference.
        objective: that the energy is learned by.
        seed: of everything random.
    """

    config: RamachandranConfig
    stages: MoleculeStages
    reference: ReferenceEnsemble
    planes: Sequence[Plane]
    starts: FoldedStarts | None
    objective: str
    seed: int

    @property
    def shares(self) -> dict[str, float]:
        """Stages of the run, each with its expected share of the work."""
        shares = {stage_of_training(self.objective, self.seed): 8.0}
        shares |= {self._stage(sampler): 1.0 for sampler in samplers_of(self.config.beads)}
        if self.config.beads == "all":
            shares |= shares_of(self.name)
        return shares

    @property
    def name(self) -> str:
        """What files and stages are called."""
        return f"{self.objective}-seed{self.seed}"

    def judged(self) -> tuple[Shown, list[Measured]]:
        """Train, sample and measure."""
        stages, folder = self.stages, self.stages.folder
        model, training = stages.trained(self.objective, self.seed, folder.path / "models" / f"{self.name}.safetensors")
        metrics = [Measured("training_seconds", training.seconds)]
        reference = self._reference(model)
        learned_from = self._beads_of(stages.training, LEARNED_FROM)
        learned_from = dataclasses.replace(learned_from, log_w=self._unbiased(learned_from.frames))
        judge = Judge(stages.system, stages.beads, self.config.beads, reference, self.planes, learned_from, self.seed)
        drawn, told = self._drawn(model)
        metrics += told
        samples = {REFERENCE: judge.reference, **drawn.samples}
        weighted = self._weighted(model) if self.config.beads == "all" else None
        if weighted is not None:
            for when, worth in weighted.worth.items():
                metrics += weight_metrics(when, worth)
            metrics.append(Measured("mirrored_weight", weighted.mirrored))
            if weighted.n_families > 1:  # of one alone there is no error
                samples[REWEIGHTED] = Sample(REWEIGHTED, weighted.frames, log_w=weighted.log_w)
        findings = {label: judge.look_at(sample) for label, sample in samples.items()}
        for label, sample in samples.items():
            if label != REFERENCE:
                metrics += judge.measure(sample, findings[label])
        return Shown(judge, samples, findings, weighted, self.starts, drawn), metrics

    def _drawn(self, model: MoleculeModel) -> tuple[Drawn, list[Measured]]:
        """Return the samples of every sampler, and what these tell of themselves."""
        folder, device, drawn, metrics = self.stages.folder, self.stages.device, Drawn(), list[Measured]()
        for sampler, label in samplers_of(self.config.beads).items():
            file, stage = folder.path / "samples" / f"{self.name}-{sampler}.h5", self._stage(sampler)
            try:
                counts = sampled(folder, stage, sampler, file, model, self.config, self.seed, device).facts
            except FallenApartError as error:
                # All of them are in a hole of the energy: that is what is wrong with it, and not with the run.
                metrics.append(Measured(f"{label}_broken", 1.0))
                drawn.fallen[label] = str(error)
                continue
            drawn.lost[label] = _, broken, total = lost_of(counts)
            metrics.append(Measured(f"{label}_broken", broken / total))
            learned = load_ensemble(file)
            if "families" in counts:
                metrics.append(Measured(f"{label}_families", float(counts["families"])))
            if sampler == "langevin":
                metrics += chain_metrics(label, learned)
            if learned.n_groups < 2:
                drawn.alone.append(label)
                continue
            drawn.samples[label] = Sample(
                label,
                self._with_energies(learned),
                independent=sampler == "reverse",
                log_w=self._unbiased(learned),
                of_a_network=True,
                learned=learned.energies,
            )
        return drawn, metrics

    def checks(self, seen: Shown) -> Iterator[trust.Check]:
        """Yield the gates of the weights: a command that fails one names no reweighted result."""
        if seen.weighted is None:
            if self.config.overweight is not None:
                yield trust_generators.uncorrectable(self.name, self.config.overweight)
            return
        worth = seen.weighted.worth.get("after")
        if worth is None:
            yield trust_generators.no_weights(self.name, len(seen.weighted.after))
            return
        yield trust_generators.check_weights(self.name, worth)
        if REWEIGHTED not in seen.samples:
            return
        unvisited = seen.judge.unvisited(seen.samples[REWEIGHTED], seen.findings[REWEIGHTED])
        yield trust_generators.check_coverage(self.name, unvisited)
        judge, found = seen.judge, seen.findings[REWEIGHTED]
        for basin, value in found.conformers.items():
            yield trust_generators.check_conformer(self.name, basin, value, judge.findings.conformers[basin])
        for plane, ours, theirs in zip(judge.planes, found.surfaces, judge.findings.surfaces, strict=True):
            yield trust_generators.check_map(f"{plane.metric('map')} of {self.name}", surface_agreement(theirs, ours))

    def warnings(self, seen: Shown) -> Iterator[trust.Check]:
        """Yield what a reader should know of the samples before any weight."""
        for label in [label for label in SAMPLERS.values() if label in seen.samples]:
            yield trust_generators.check_integrity(f"{self.name}, {label}", seen.findings[label].integrity)
        for label, (what, lost, total) in seen.drawn.lost.items():
            yield trust_generators.check_intact(f"{self.name}, {label}", what, lost, total)
        if "langevin" in seen.samples and (mixing := seen.samples["langevin"].frames.diagnostics.get("split_r_hat")):
            yield trust_generators.check_chains(f"{self.name}, langevin", mixing)
        if SMC in seen.samples:
            particles = seen.samples[SMC].frames
            share = particles.largest_group_share
            yield trust_generators.check_families(f"{self.name}, {SMC}", share, len(particles))
        for label in seen.drawn.alone:
            yield trust_generators.one_family(f"{self.name}, {label}")
        for label, reason in seen.drawn.fallen.items():
            yield trust_generators.fallen_apart(f"{self.name}, {label}", reason)

    def _reference(self, model: MoleculeModel) -> Sample:
        sample = self._beads_of(self.reference, REFERENCE)
        learned = evaluate(learned_target(model), self.stages.positions(self.reference))
        sample = dataclasses.replace(sample, learned=learned)
        if self.config.beads == "all":
            return sample
        return dataclasses.replace(sample, frames=dataclasses.replace(sample.frames, energies=learned))

    def _beads_of(self, frames: ReferenceEnsemble, label: str) -> Sample:
        """Return the beads of frames; their energies are those of all atoms, where these are there."""
        return Sample(label, dataclasses.replace(frames, positions=self.stages.positions(frames).float()))

    def _unbiased(self, frames: ReferenceEnsemble) -> Float[np.ndarray, " frames"] | None:
        """Return the log weights of frames of beads in the state without the bias; None where there was no bias."""
        if not self.config.favour:
            return None
        biases = biases_of(self.stages.beads, [Favour(*one) for one in self.config.favours])
        return sum_of(biases, frames.positions.double()).numpy()

    def _with_energies(self, frames: ReferenceEnsemble) -> ReferenceEnsemble:
        """Return frames with their true energies where all atoms are there."""
        if self.config.beads != "all":
            return frames
        target = self.stages.system.target(self.config.state, self.config.temperature_kelvin, torch.float64)
        return dataclasses.replace(frames, energies=evaluate(target, frames.positions))

    def _weighted(self, model: MoleculeModel) -> WeightedEnsemble:
        config, stages = self.config, self.stages
        sizes = WeightedSizes(
            config.particles,
            config.reverse_levels,
            config.bridge_keeps,
            config.end_moves,
            config.resampling,
            config.resample_below,
        )
        learned_from = stages.positions(stages.training)
        sampling = WeightedSampling(model, stages.system, learned_from, sizes, self.seed, stages.device)
        found = sampling.run(stages.folder, self.name)
        samples = stages.folder.path / "samples"
        found.save(samples / f"{self.name}-reweighted.h5", samples / f"{self.name}-u_kn.npz", stages.system)
        return found

    def _stage(self, sampler: str) -> str:
        return f"{sampler}-{self.name}"


def samplers_of(beads: str) -> Mapping[str, str]:
    """Return the samplers of a bead model, each with its label; particles of all atoms go on to the true energy."""
    return {sampler: label for sampler, label in SAMPLERS.items() if sampler != SMC or beads != "all"}
