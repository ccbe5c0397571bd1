"""What the contract tests run over: every modality and method found, each on the small phantom it names."""

import math
from functools import cache

from braggscope.core.batch import PixelBlock
from braggscope.core.curves import pixel_blocks
from braggscope.core.modality import modalities

MODALITIES = list(modalities().values())
METHODS = [(m, method) for m in MODALITIES for method in m.methods()]
METHOD_NAMES = [f"{m.name}-{method}" for m, method in METHODS]


@cache
def example_geometry(modality):
    return modality.load(modality.example_geometry)()


@cache
def simulation(modality, method="", seed=1, noisy=True):
    """The small phantom of the modality, or of one of its methods, with its own noise or with none."""
    phantom = modality.phantom(next(iter(modality.phantoms)))
    values = {**modality.example_phantom, **modality.example_scans.get(method, {}), **({} if noisy else {"noise": None})}
    return phantom(example_geometry(modality), seed=seed, **values)


@cache
def prepared(modality, method):
    """The method with its default options (one that learns: those of a training of seconds), prepared on the small phantom."""
    source = simulation(modality, method)
    options = modality.example_options.get(method, {})
    return modality.estimator(method).with_options(source.geometry, options).prepare(source)


def run(estimator, source, batches=None):
    """State after all batches (or the given ones); a method that reads curves gets those of these frames."""
    state = estimator.init(source)
    for part in parts(estimator, source, batches if batches is not None else source.batches(97)):
        state = estimator.update(state, part)
    return state


def parts(estimator, source, batches):
    """What a method is fed with: the batches of frames, or blocks of pixels with the curves that these frames give."""
    if estimator.reads == "frames":
        return list(batches)
    return list(pixel_blocks(batches, math.prod(source.shape), source.frame_shape, size=97))


def half_of(estimator, source, batches, which):
    """The state that has used one part of the scan: the frames (or the pixels) where `which` is true."""
    state = estimator.init(source)
    for part in parts(estimator, source, batches):
        mine = which[part.index]
        if estimator.reads == "pixels":
            part = PixelBlock(part.index[mine], part.curves[mine], part.mask[mine])
        state = estimator.update(state, part.take(mine) if estimator.reads == "frames" else part)
    return state
