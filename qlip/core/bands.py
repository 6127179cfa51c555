"""Images in bands of rows, small enough for a processor's caches, so that no array as large as the image is written and read again."""

from torch import Tensor

BAND = 2**20  # floats: 4 MB


def band_rows(images: Tensor, patch_size: int = 1) -> int:
    """Rows of patches of images ``(..., H, W)`` in a band; all of them on a GPU, which would be kept waiting between bands."""
    height, width = images.shape[-2:]
    floats = images.shape[:-2].numel() * width * patch_size
    return max(BAND // floats, 1) if images.device.type == "cpu" else max(height // patch_size, 1)
