"""Checkpoints that hold the coordinate MLP and leave the frozen CLIP where it came from."""

from torch import Tensor

from qlip.core.position import PositionMLP

PREFIX = "vision.position."  # where QlipModule has the network


def trained_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors of a module's state that training changes."""
    return {name: tensor for name, tensor in state.items() if name.startswith(PREFIX)}


def check_trained_state(state: dict[str, Tensor], position: PositionMLP) -> None:
    """Check that a checkpoint's state holds the tensors of this network and no others.

    Raises:
        ValueError: if a tensor is missing or there is one too many.
    """
    wanted = {f"{PREFIX}{name}" for name in position.state_dict()}
    if wanted != state.keys():
        different = ", ".join(sorted(wanted ^ state.keys()))
        raise ValueError(f"ckpt_path: tensors differ from the configured MLP: {different}")
