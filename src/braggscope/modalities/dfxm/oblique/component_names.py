"""Names of tensor components by their axes, in the order in which arrays and map files hold them."""

COMPONENTS = tuple(a + b for a in "xyz" for b in "xyz")  # of F, row by row
STRAINS = ("xx", "yy", "zz", "yz", "xz", "xy")  # of a symmetric tensor, as `physics.deformation` gives its derivatives
