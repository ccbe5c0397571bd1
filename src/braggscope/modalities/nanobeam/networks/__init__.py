"""Networks for frames of a nanobeam. These modules import torch; import them where a network is needed."""
