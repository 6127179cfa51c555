"""Patches against torch's own resampling of one leaf at a time, and ragged batches."""

import pytest
import torch
import torch.nn.functional as F

from qlip import PatchBatch, Quadtree, patchify
from qlip.core.resample import resample
from tests.core import reference
from tests.operation_counters import Waits


def cut(seed: int, cover: str = "roots"):
    image, p = reference.random_case(seed)
    torch.manual_seed(seed)
    leaves = Quadtree(0.5, "random", patch_size=p, cover=cover)(image)
    return image, p, leaves


def triples(leaves):
    return list(zip(leaves.row.tolist(), leaves.col.tolist(), leaves.size.tolist(), strict=True))


@pytest.mark.parametrize("cover", ["roots", "full"])
def test_patches_equal_one_leaf_at_a_time(cover):
    sizes = set()
    for seed in range(200):
        image, p, leaves = cut(seed, cover)
        expected = reference.patches(image, triples(leaves), p)
        torch.testing.assert_close(patchify(image, leaves), expected, rtol=0, atol=1e-6)
        sizes |= set(leaves.size.tolist())
    assert sizes == {1, 2, 4, 8}


def test_patches_of_a_large_image():
    image = reference.make_image(1, 14, 35, 50)
    torch.manual_seed(0)
    leaves = Quadtree(0.4, "random")(image)
    assert leaves.size.max() == 16
    torch.testing.assert_close(
        patchify(image, leaves), reference.patches(image, triples(leaves), 14), rtol=0, atol=2e-6
    )


def test_single_patches_are_cut_to_the_last_bit():
    image = reference.make_image(0, 14, 5, 7)
    patches = patchify(image, Quadtree(criterion="uniform")(image))
    assert torch.equal(patches.view(5, 7, 3, 14, 14).permute(2, 0, 3, 1, 4).reshape(3, 70, 98), image)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_resampled_in_float32(dtype):
    image = reference.make_image(2, 14, 12, 17).to(dtype)
    leaves = Quadtree(0.5)(image)
    assert leaves.size.max() > 1
    got = patchify(image, leaves)
    assert got.dtype == dtype
    assert torch.equal(got, patchify(image.float(), leaves).to(dtype))


def test_memory_layout_does_not_matter():
    image = reference.make_image(2, 4, 12, 17)
    leaves = Quadtree(0.5, patch_size=4)(image)
    strided = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(patchify(strided, leaves), patchify(image, leaves))


def test_gradients_reach_every_pixel():
    image = reference.make_image(2, 4, 12, 17).requires_grad_()
    leaves = Quadtree(0.5, patch_size=4)(image)
    patchify(image, leaves).sum().backward()
    torch.testing.assert_close(image.grad.sum().item(), float(len(leaves) * 3 * 16), rtol=1e-5, atol=0)
    assert (image.grad > 0).all()


@pytest.mark.parametrize("shape", [(84, 70), (70, 84), (140, 168)])
def test_leaves_of_another_image_are_refused(shape):
    leaves = Quadtree()(torch.zeros(3, 70, 70))
    with pytest.raises(ValueError, match=f"grid of 5 x 5 patches for an image of {shape[0]} x {shape[1]} pixels"):
        patchify(torch.zeros(3, *shape), leaves)


@pytest.mark.parametrize(("side", "to"), [(28, 14), (448, 14), (14, 56), (6, 3), (2, 1), (7, 7)])
def test_resample_is_torchs(side, to):
    squares = torch.randn(4, 3, side, side)
    expected = F.interpolate(squares, size=(to, to), mode="bilinear", antialias=True)
    torch.testing.assert_close(resample(squares, to), expected, rtol=0, atol=2e-6)


def items():
    return [PatchBatch.from_image(image, leaves) for image, leaves in map(small, (0, 1, 2))]


def small(seed: int):
    image = reference.make_image(seed, 2, 6 + seed, 9)
    return image, Quadtree(0.3, patch_size=2)(image)


def test_from_image_holds_patches_and_centres():
    image, leaves = small(1)
    batch = PatchBatch.from_image(image, leaves)
    assert torch.equal(batch.patches[0], patchify(image, leaves))
    assert torch.equal(batch.coords[0], leaves.coords())
    assert batch.mask.all()
    assert batch.num_tokens.tolist() == [len(leaves)]


@pytest.mark.parametrize("cover", ["roots", "full"])
def test_images_cut_together_equal_images_cut_one_by_one(cover):
    images = torch.stack([reference.make_image(seed, 3, 11, 14) for seed in range(5)])
    leaves = Quadtree(0.3, patch_size=3, cover=cover).batch(images)
    assert len({len(each) for each in leaves}) > 2
    together = PatchBatch.from_images(images, leaves)
    apart = PatchBatch.collate(map(PatchBatch.from_image, images, leaves))
    for name in ("patches", "coords", "mask"):
        assert torch.equal(getattr(together, name), getattr(apart, name))


def test_leaves_that_are_not_those_of_the_images_are_refused():
    images, tree = torch.zeros(2, 3, 70, 70), Quadtree()
    with pytest.raises(ValueError, match=r"those of 1 images with grids \[\(5, 5\)\] for 2 images"):
        PatchBatch.from_images(images, tree.batch(images)[:1])
    with pytest.raises(ValueError, match=r"grids \[\(4, 5\), \(5, 5\)\]"):
        PatchBatch.from_images(images, [tree(images[0]), tree(torch.zeros(3, 56, 70))])
    with pytest.raises(ValueError, match="pass the leaves of this very image"):
        PatchBatch.from_images(images, tree.batch(torch.zeros(2, 3, 56, 70)))


@pytest.mark.parametrize("tree", [Quadtree(0.3), Quadtree(max_tokens=90), Quadtree(0.3, cover="full")], ids=str)
def test_a_device_is_waited_for_as_often_whatever_the_batch(tree):
    def waits(count):
        images = torch.stack([reference.make_image(seed, 14, 12, 17) for seed in range(count)])
        with Waits() as seen:
            PatchBatch.from_images(images, tree.batch(images))
        return seen.seen()

    waits(1)  # fills the caches of resampling matrices
    few = waits(2)
    assert few["tolist"] == 1  # it does count
    assert waits(8) == few
    assert sum(few.values()) <= 10


def test_collate_pads_on_the_right():
    singles = items()
    counts = [item.mask.shape[1] for item in singles]
    assert len(set(counts)) == 3
    batch = PatchBatch.collate(iter(singles))
    assert len(batch) == 3
    assert batch.num_tokens.tolist() == counts
    assert batch.patches.shape == (3, max(counts), 3, 2, 2)
    for i, single in enumerate(singles):
        n = counts[i]
        assert torch.equal(batch.patches[i, :n], single.patches[0])
        assert torch.equal(batch.coords[i, :n], single.coords[0])
        assert batch.mask[i, :n].all()
        assert not batch.mask[i, n:].any()
        assert not batch.patches[i, n:].any()
        assert not batch.coords[i, n:].any()


def test_collate_joins_batches_of_several():
    first, second, third = items()
    nested = PatchBatch.collate([PatchBatch.collate([first, second]), third])
    flat = PatchBatch.collate([first, second, third])
    assert all(torch.equal(getattr(nested, name), getattr(flat, name)) for name in ("patches", "coords", "mask"))


def test_to_leaves_coordinates_in_float32():
    batch = PatchBatch.collate(items()).to("cpu", dtype=torch.bfloat16)
    assert batch.patches.dtype == torch.bfloat16
    assert batch.coords.dtype == torch.float32
    assert batch.mask.dtype == torch.bool
    assert batch.to("meta").coords.device.type == "meta"


@pytest.mark.parametrize(
    ("build", "message"),
    [(list, r"got patches of shapes \[\]; takes at least one"), (lambda: [*items(), other()], "3, 2, 2.*3, 4, 4")],
)
def test_collate_refuses_what_does_not_fit(build, message):
    with pytest.raises(ValueError, match=message):
        PatchBatch.collate(build())


def other():
    image = torch.zeros(3, 8, 8)
    return PatchBatch.from_image(image, Quadtree(patch_size=4)(image))
