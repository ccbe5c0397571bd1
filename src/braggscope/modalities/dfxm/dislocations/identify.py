"""How many dislocations an image shows, and of which characters: evidence over both.

Dislocations are added one at a time. The image of what is found so far is taken off, and the rest is searched for one more, of
any character; the best are fitted together with the others. Each is then sought anew beside the others, so that an early mistake
is mended. Priors: any number up to the largest, any place in the field, any character alike; places and characters of n
dislocations can be written in n! orders.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import softmax

from .fit import Fit, Level, deviation, fit
from .model import ImageModel
from .posterior import with_posterior
from .search import candidates, candidates_beside, climbed, followed, located

Array = np.ndarray
PLAUSIBLE = 12.0  # log-likelihood below the best, from which on a character is out
STARTS = 7  # of one more dislocation, from either search
BEAM = 2  # sets of characters that are carried on
ROUNDS = 2  # of seeking each anew
STANDS_OUT = 4.8  # standard deviations; of 2500 pixels one in 250 images has as much by chance
UNLIKELY = 8.0  # fall of log-evidence at which no further dislocation is tried


@dataclass(frozen=True)
class Found:
    """What an image shows.

    fit: The best, with the posterior of its places.
    probability: Of each dislocation's character, beside the others as they are; shape (dislocation,).
    alternatives: Probability of every character for each dislocation, shape (dislocation, character).
    number: Probability of 0, 1, ... dislocations, of the numbers that were asked for.
    none: Probability that there is none, also where a number was asked for.
    """

    fit: Fit
    probability: Array
    alternatives: Array
    number: Array
    none: float


def identified(
    model: ImageModel,
    counts: Array,
    usable: Array,
    level: Level,
    *,
    most: int = 4,
    least: int = 0,
    which: Sequence[int] | None = None,
) -> Found:
    """The dislocations of an image.

    least, most: Of dislocations.  which: Characters to choose from; all by default.
    """
    choice = list(range(len(model.characters))) if which is None else list(which)
    best = {0: with_posterior(model, counts, usable, _none(model, counts, usable, level))}
    known: list[Fit] = []
    for n in range(1, most + 1):
        if n == 1:
            known = located(model, counts, usable, level, choice)
        elif n > least and _explained(model, counts, usable, known[0]):
            break
        else:
            more = [f for before in known[:BEAM] for f in _one_more(model, counts, usable, before, choice)]
            known = sorted(more, key=lambda f: f.loss)[:BEAM]
            known[:1] = [_sought_anew(model, counts, usable, known[0], choice)] if known else []
        if not known:
            break
        if n > 1:
            known[0] = climbed(model, counts, usable, known[0])
        best[n] = with_posterior(model, counts, usable, known[0])
        if n > least and _log(model, best, level, n, len(choice)) < _log(model, best, level, n - 1, len(choice)) - UNLIKELY:
            break
    logs = np.array([_log(model, best, level, n, len(choice)) if n in best else -math.inf for n in range(most + 1)])
    logs[np.isnan(logs)] = -math.inf  # an image that tells nothing of a place
    asked = np.arange(most + 1) >= least
    number = softmax(np.where(asked, logs, -math.inf)) if np.isfinite(logs[asked]).any() else np.eye(most + 1)[max(best)]
    chosen = best[int(number.argmax())]
    alternatives = np.array([_alternatives(model, counts, usable, chosen, k, choice) for k in range(len(chosen.which))])
    alternatives = alternatives.reshape(len(chosen.which), len(model.characters))
    own = alternatives[np.arange(len(chosen.which)), list(chosen.which)]
    return Found(chosen, own, alternatives, number, float(softmax(logs)[0]))


def _none(model: ImageModel, counts: Array, usable: Array, level: Level) -> Fit:
    """The levels of an image without dislocations; no amplitude can be told."""
    free = (False, *level.free[1:])
    return fit(model, counts, usable, [], np.zeros((0, 2)), dataclasses.replace(level, free=free))


def _explained(model: ImageModel, counts: Array, usable: Array, found: Fit) -> bool:
    """Whether no pixel and no square of 3 x 3 pixels stands out of the noise, so that nothing is left to find."""
    image = model.image(found.which, found.places, derivatives=False)[0]
    residual, variance = deviation(model, counts, image, found.level)
    residual = np.where(usable, residual / np.sqrt(variance), 0.0)
    return max(np.abs(residual).max(), 3 * np.abs(ndimage.uniform_filter(residual, 3)).max()) < STANDS_OUT


def _log(model: ImageModel, best: dict[int, Fit], level: Level, n: int, characters: int) -> float:
    """Log of evidence times prior for n dislocations, each place in the field and each character being as likely.

    At most as much above that of none as the likelihood is: where an image tells nothing of a place, the sum over places would
    reach beyond the field.
    """
    found = best[n].evidence - n * math.log(4 * math.prod(model.field_nm) * characters) + math.lgamma(n + 1)
    if n and level.free[0]:
        found -= math.log(2 * level.amplitude)  # any amplitude up to twice the first guess
    return float(np.minimum(found, best[0].evidence + best[0].loss - best[n].loss))


def _one_more(model: ImageModel, counts: Array, usable: Array, found: Fit, choice: list[int]) -> list[Fit]:
    """Joint fits with one dislocation more, the best first."""
    beside = candidates_beside(model, counts, usable, found.level, found.which, found.places, choice, 2)
    rest = counts - found.level.amplitude * model.image(found.which, found.places, derivatives=False)[0]
    level = dataclasses.replace(found.level, free=(False, *found.level.free[1:]))
    alone = candidates(model, rest, usable, level, choice, 2)  # as if the images added, which they do far from each other
    starts = []
    for one in [*beside[:STARTS], *alone[:STARTS]]:
        places = np.concatenate([found.places, model.from_image([one.which], one.place)])
        starts.append(((*found.which, one.which), places, found.level))
    return followed(model, counts, usable, starts, coarse=True) if starts else []


def _without(found: Fit, k: int) -> Fit:
    keep = [i for i in range(len(found.which)) if i != k]
    return dataclasses.replace(found, which=tuple(found.which[i] for i in keep), places=found.places[keep])


def _sought_anew(model: ImageModel, counts: Array, usable: Array, found: Fit, choice: list[int]) -> Fit:
    """Each dislocation sought again beside the others, until none is found better."""
    for _ in range(ROUNDS):
        before = found.loss
        for k in range(len(found.which)):
            fits = _one_more(model, counts, usable, _without(found, k), choice)
            if fits and fits[0].loss < found.loss - 0.5:
                found = fits[0]
        if found.loss > before - 0.5:
            break
    return found


def _alternatives(model: ImageModel, counts: Array, usable: Array, found: Fit, k: int, choice: list[int]) -> Array:
    """Probability of each character for dislocation k, the others as they are."""
    logs = np.full(len(model.characters), -math.inf)
    logs[found.which[k]] = found.evidence
    rest = [one for one in choice if one != found.which[k]]
    if len(found.which) == 1:
        fits = located(model, counts, usable, found.level, rest) if rest else []
    else:
        fits = _one_more(model, counts, usable, _without(found, k), rest) if rest else []
    for one in fits:
        if one.loss < found.loss + PLAUSIBLE:
            at = one.which[-1]
            logs[at] = max(logs[at], with_posterior(model, counts, usable, one).evidence)
    share = np.exp(logs - logs.max())
    return share / share.sum()
