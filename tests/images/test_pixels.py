"""What travels to a model counts the same however it travels."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.pin_memory import pin_memory

from qlip import Quadtree
from qlip.images.eight_bit import EightBitImage
from qlip.images.pixels import PerImage, pack, to_batch, token_counts


def test_leaves_are_counted_alike_in_pairs_and_in_a_batch_of_their_patches():
    pixels = torch.randint(256, (3, 8 * 28, 9 * 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = EightBitImage(pixels, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
    leaves = image.leaves(Quadtree(max_tokens=50, patch_size=28, cover="full"))
    pair = pack(image, leaves, unit=2)
    assert len(pair[0]) == 4 * len(leaves)
    assert (
        token_counts([pair])
        == token_counts(PerImage([pair]))
        == token_counts(to_batch([pair]), unit=2)
        == [len(leaves)]
    )


@pytest.fixture
def images():
    """Three images of different length, the last in two parts, as LLaVA-NeXT has them."""

    def pair(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(count, 3, 2, 2), torch.arange(count * 5).view(count, 5)

    return PerImage([pair(4), pair(7), [pair(1), pair(2)]])


def tensors(images: PerImage) -> list[torch.Tensor]:
    (a, b, (c, d)) = images
    return [*a, *b, *c, *d]


def test_values_of_images_move_and_only_floats_are_cast(images):
    for moved in (images.to("meta", torch.bfloat16), images.to(device="meta", dtype=torch.bfloat16, non_blocking=True)):
        assert {each.device.type for each in tensors(moved)} == {"meta"}
        assert [each.dtype for each in tensors(moved)] == [torch.bfloat16, torch.int64] * 4
    cast = images.to(torch.float64)
    assert [each.dtype for each in tensors(cast)] == [torch.float64, torch.int64] * 4
    assert [each.device.type for each in tensors(images.to("meta").to(torch.bfloat16))] == ["meta"] * 8
    assert all(map(torch.equal, tensors(cast.cpu()), tensors(images)))
    assert tensors(images)[0].dtype == torch.float32


def test_values_of_images_are_pinned_and_sent_to_a_gpu(images, monkeypatch):
    seen: list[torch.Tensor] = []
    for name in ("pin_memory", "cuda"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, *_, **__: seen.append(tensor) or tensor.clone())
    for changed in (images.pin_memory(), images.cuda("cuda:0", non_blocking=True), pin_memory({"a": images})["a"]):
        assert isinstance(changed, PerImage)
        assert all(map(torch.equal, tensors(changed), tensors(images)))
    assert len(seen) == 3 * 8


def test_images_are_taken_by_number_and_by_slice(images):
    assert len(images) == 3
    assert images[0] is images[-3]
    assert len(images[1:]) == 2
    assert images[1:][0] is images[1]
    assert isinstance(images[:1], PerImage)
    assert repr(images) == "PerImage(3 images)"
    with pytest.raises(IndexError):
        images[3]


def test_values_of_images_survive_pickle_and_copies(images):
    for other in (pickle.loads(pickle.dumps(images)), copy.copy(images), copy.deepcopy(images)):
        assert all(map(torch.equal, tensors(other), tensors(images)))


def test_images_of_several_batches_are_joined_as_torch_collates(images):
    batch = default_collate([{"pixel_values": images[:1], "label": 3}, {"pixel_values": images[1:], "label": 4}])
    assert batch["label"].tolist() == [3, 4]
    assert all(map(torch.equal, tensors(batch["pixel_values"]), tensors(images)))


def test_images_of_different_length_are_no_array(images):
    with pytest.raises(TypeError, match=r"^pixel_values: images differ .*dataset\.with_transform"):
        np.asarray(images)
