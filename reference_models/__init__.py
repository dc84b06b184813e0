"""The models of an introductory book on deep learning, from scratch: one idea a file, in the order of the book.

From scratch means torch's tensor operations and autograd; its layers and losses are only what the tests compare with.
Every forward says what shapes it takes.
"""

from reference_models.cnn import SimpleCNN as SimpleCNN
from reference_models.presets import PRESETS as PRESETS
from reference_models.presets import train as train
