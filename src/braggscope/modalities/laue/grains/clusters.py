"""Positions grouped by the distances of their patterns in the reduced space: clusters, connected regions, colours.

Average linkage (Sokal & Michener 1958): two groups are one as long as the mean distance between their members is below a share
of the distance of unrelated patterns, which is the median of all distances where the scan is many grains wide.
"""

from __future__ import annotations

import numpy as np

MOST = 12_000  # points whose distances are all taken: 0.6 GB, and as much again while they are grouped
STRETCH = (1.0, 99.0)  # percentiles of a component that are colour 0 and 1


def clusters(points: np.ndarray, apart: float) -> np.ndarray:
    """Number of the cluster of each point, from 1, shape (point,).

    points: Shape (point, component); of more than MOST a part spread over the scan is grouped, the others follow their nearest.
    apart: Mean distance between two clusters at least, as a share of the median distance of all pairs.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial import cKDTree
    from scipy.spatial.distance import pdist

    if len(points) < 2:
        return np.ones(len(points), int)
    some = np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST)).astype(int))
    chosen = points[some].astype(np.float64)
    distances = pdist(chosen)
    limit = apart * np.median(distances)
    label = np.asarray(fcluster(linkage(distances, "average"), limit, "distance"), int)
    return label if len(some) == len(points) else label[cKDTree(chosen).query(points)[1]]


def regions(label: np.ndarray) -> np.ndarray:
    """Connected regions of one label (0: none), numbered from 1, the largest first; of any number of axes."""
    from skimage.measure import label as connected

    found = connected(label, background=0, connectivity=1)
    size = np.bincount(found.ravel())
    size[0] = 0
    number = np.zeros(len(size), int)
    order = np.argsort(-size[1:], kind="stable") + 1
    number[order] = np.arange(1, len(size))
    return np.asarray(number[found])


def colours(points: np.ndarray) -> np.ndarray:
    """Red, green and blue (0 to 1) of points: their first three components, stretched; shape (point, 3)."""
    if not len(points):
        return np.zeros((0, 3))
    low, high = np.percentile(points[:, :3], STRETCH, axis=0)
    return np.asarray(np.clip((points[:, :3] - low) / np.maximum(high - low, 1e-12), 0, 1), np.float64)
