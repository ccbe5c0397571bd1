"""Dislocation boundaries in a weak-beam volume: from bright points to planes, lines, Burgers vectors and junctions.

`points` finds what is bright in each layer, `planes` the walls among the points (MSAC), `lines` the dislocations in a wall,
`burgers` their Burgers vectors (Frank's rule), `junctions` where walls meet, and `table` writes all of it as a map. `errors` says
how well a fit is known whose points are not independent.

Frame: x along the beam (rows rising), y along columns rising, z up; um; the origin is pixel (0, 0) of a layer at z = 0.
After Yildirim et al. 2023 (Sci. Rep. 13, 3834).
"""
