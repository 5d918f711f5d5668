"""Initial weights from a file, by name, with a list of everything that did not fit.

Takes torchvision's own ``.pth``, for the transformer timm's, DeiT's or DINO's, a ``.safetensors``
file with the same names, or the folder of an earlier run. No pickle is executed: ``.pth`` is read
with ``weights_only``.

Does not: copy by position or shape, or skip anything silently.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from chestxray.errors import WeightsError
from chestxray.learning.networks import Network

WEIGHTS_FILE = "weights.safetensors"
"""The trained (EMA) weights in the folder of a run."""

COLOURED = ("conv1.weight", "patch_embed.proj.weight")
"""What reads the picture: published for three channels."""
POSITIONS = "pos_embed"

# PyTorch's safe unpickler trusts the bytes to be a pickle, and stumbles in any of these ways.
_DAMAGED = (
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class InitReport:
    """What became of every name: ``loaded`` from the file, ``missing`` in it (so initialised at
    random), ``left_over`` in it (unknown to the network, or of another shape)."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded"
        if self.missing:
            text += f"; missing, initialised at random: {', '.join(self.missing)}"
        if self.left_over:
            text += f"; left over in the file: {', '.join(self.left_over)}"
        return text


def weights_file(source: Path) -> Path:
    """The file of weights that ``source``, a file or the folder of a run, stands for."""
    return source / WEIGHTS_FILE if source.is_dir() else source


def describe_weights(source: Path) -> str:
    """Which weights ``source`` holds: its name and the SHA-256 of their file."""
    sha256 = hashlib.sha256(weights_file(source).read_bytes()).hexdigest()
    return f"{source.name}, SHA-256 {sha256}"


def read_weights(source: Path) -> dict[str, Tensor]:
    """Read named tensors from a ``.pth``, a ``.safetensors`` or the folder of a run.

    Raises:
        WeightsError: the file cannot be read, or holds something else than named tensors.
    """
    file = weights_file(source)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as exc:
        raise WeightsError(f"cannot read the weights in {file}: {exc.strerror or exc}") from exc
    except _DAMAGED as exc:
        raise WeightsError(f"{file} holds no weights that can be read safely") from exc
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]  # as DeiT publishes its weights
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise WeightsError(f"{file} does not hold named tensors")
    return state


def initialise(network: Network, weights: dict[str, Tensor]) -> InitReport:
    """Copy ``weights`` into ``network`` by name.

    Three input channels collapse to one by summing: for a grey image shown three times, the sum of
    the kernels computes the same. The position of a class token is dropped with the token.

    Raises:
        WeightsError: no name fits at all.
    """
    state = network.state_dict()
    fitting = {}
    for name, tensor in weights.items():
        if name in state:
            own = _as_needed_here(name, tensor, state[name].shape)
            if own.shape == state[name].shape:
                fitting[name] = own
    if not fitting:
        raise WeightsError("none of the weights has a name and shape that the network knows")
    network.load_state_dict(fitting, strict=False)
    return InitReport(
        loaded=tuple(fitting),
        # A count of batches is no knowledge: torchvision's older files lack it.
        missing=tuple(
            n for n in state if n not in fitting and not n.endswith("num_batches_tracked")
        ),
        left_over=tuple(name for name in weights if name not in fitting),
    )


def _as_needed_here(name: str, tensor: Tensor, wanted: torch.Size) -> Tensor:
    if name in COLOURED and tensor.ndim == 4 and tensor.shape[1] == 3:
        return tensor.sum(dim=1, keepdim=True)
    if name == POSITIONS and tensor.ndim == 3 and tensor.shape[1] == wanted[1] + 1:
        return tensor[:, 1:]  # the class token's comes first
    return tensor
