"""White-beam Laue microdiffraction: grains, their orientation and strain, from patterns that mix several of them."""
