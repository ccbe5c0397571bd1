"""One to three peaks in the curve of a pixel, for the method peakfit: kernels of the fit, search, quantities."""
