"""What the Ramachandran page says of its pictures and tables."""

NO_ENERGY = (
    "Reweighting is not applicable: it takes the true energy of every configuration, and a force field knows none of "
    "some atoms without the others. --beads all has weights."
)
"""Said of coarse beads."""

MAPS = (
    "{about}, first seed. Above: potential of mean force of φ and ψ on one colour scale, zero at each minimum; grey "
    "was never visited. Middle: what is too high (red) or too low (blue), where both were visited. Below: the same in "
    "standard errors, those of both together."
)
RESIDUE_MAPS = (
    "{about}, first seed; a row for each residue that has φ and ψ. Left: potential of mean force of φ and ψ on one "
    "colour scale, zero at each minimum; grey was never visited. Right: what is too high (red) or too low (blue), "
    "where both were visited."
)
SLOW_MAPS = (
    "{about}, first seed. Above: free energy over the two slowest coordinates of the reference on one colour scale, "
    "zero at each minimum; grey was never visited. Middle: what is too high (red) or too low (blue), where both were "
    "visited. Below: the same in standard errors, those of both together."
)
SLOW = (
    "Coordinates, limits and bins are those of the reference alone; what lies beyond the limits is told above a map. "
    "JS is of 100 × 100 bins and one outlier bin at each end, beside that of one half of the reference from the other."
)
STARTS = (
    "Who is folded of the walkers of the whole reference, by what their first frame was: thin, the share at that time; "
    "thick, the mean so far. Where the two have not met, the reference is no equilibrium."
)
CONTACTS = (
    "{about}, first seed: share of configurations in which two CA atoms, three places apart or more, are nearer than "
    "0.8 nm. Above the diagonal the origin that the title names, below it the reference."
)
FOLDING = (
    "The folding free energy is −ln(p / (1 − p)) of the folded fraction p, B folded, A all the rest: it moves with the "
    "limit that the caption names. Contact maps differ by the mean over pairs, beside the same of two halves of the "
    "reference."
)
DISTRIBUTIONS = (
    "{about}, first seed: energies, and the bond, the angle and, of CA beads, the distance whose generated "
    "distribution is farthest off. Bins hold all but 0.05 % of the reference at either end; the legend "
    "tells what lies beyond them."
)
CONFIGURATIONS = (
    "A few configurations of every origin, first seed, laid on the first of the reference: drag to turn, wheel to "
    "zoom, slider or arrows for the next one. Those that fall out of the frame are no molecule."
)
WEIGHTS = (
    "How much of the whole weight the heaviest families carry, first seed. The nearer to the dashed line, the more "
    "samples the weights are worth; a step at the left is a family that carries everything."
)
DISTANCES = (
    "JS is the Jensen-Shannon divergence of 64 × 64 bins [nats], with limits [−π, π] and, as it is published, with "
    "those of both sets pooled; the PMF error is the squared difference of the free energies weighted by population "
    "[kT²]. Both shrink with the number of samples: compare with the floor, one half of the reference in place "
    "of the samples, equally many. What is above the floor comes with its scatter over halvings of the reference. "
    "Samples of exp(−U) are particles of sequential Monte Carlo down the noise, whose energies weigh them: no dynamics "
    "has to cross a barrier, but copies of one particle raise their distances above those of as many draws."
)
PUBLISHED_CHAIN = (
    "Published numbers are of another data set: long trajectories in explicit water at 340 K, their own slow "
    "coordinates and limits; their ± is the scatter of three seeds, no standard error."
)
PUBLISHED = (
    "Published numbers are of the force field of aldp-ildn and of other and more frames; their ± is the scatter of "
    "three seeds, no standard error."
)
WORTH = (
    "The reverse process is run as sequential Monte Carlo under the learned energies, whose particles stand for the "
    "learned energy at the least noise; at one stroke is importance sampling of the true energy from there, and the "
    "bridge leads there in small steps with Monte Carlo moves between, and ends with --end-moves of them at the true "
    "energy, which part copies and leave weights as they are. The effective fraction is (Σw)² / (n Σw²) over "
    "families, of n at the start. A Pareto shape above {limit:.2f} has no error bar to be believed. A family is to "
    "be clipped where it weighs more than √n times the mean; none is. Mirror images have no weight: a force field "
    "cannot tell them from the molecule, and their share is what they had."
)
ERRORS = (
    "Errors are those of independent draws: generated frames each one, a chain or a walker with all its frames one, a "
    "family of weighted frames one. What a network says of conformers and of a fold has the error of the frames that "
    "it learned from as well; maps have not."
)
WHOLE = (
    "Stretched: a bond is off by a quarter of its length; clashing: two atoms without a bond are so close that they "
    "would be drawn as bonded; mirrored: a stereocentre that the beads show has the wrong hand; sunken: in a hole of "
    "the energy, 10 kT below every frame of the reference."
)
