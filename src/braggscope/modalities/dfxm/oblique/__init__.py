"""Several reflections in oblique geometry: their vectors, the lit plane in each camera, the deformation gradient."""
