"""Why does a classifier say so? A heat map over the pixels that it saw.

Three ways to one, the cheapest that fits the classifier being taken: `cam` reads the answer off the head,
which is linear; `grad-cam` asks PyTorch for a gradient where the way to the head is not; `occlusion` covers
one part of the image after the other and sees what happens, which works for every classifier.
"""

from headstart.explanations.heat import METHODS, Explainer, HeatMap, heat_map
from headstart.explanations.overlays import explain, outlined, overlay

__all__ = ["METHODS", "Explainer", "HeatMap", "explain", "heat_map", "outlined", "overlay"]
