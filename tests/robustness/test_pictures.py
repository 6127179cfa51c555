"""Pictures of every format, damaged or lying, by every way of handing them over: refused by name, or the same pixels."""

import io
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from qlip import QlipImageProcessor, Quadtree
from qlip.images.read import read_size, to_rgb
from tests.robustness.campaign import Campaign
from tests.robustness.damage import damaged

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "F", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I;16"),
    "TGA": ("L", "RGB", "RGBA"),
    "ICO": ("RGBA",),
    "JPEG2000": ("L", "RGB", "RGBA"),
    "AVIF": ("RGB",),
    "MPO": ("RGB",),
}
Image.init()
ANIMATED = ("GIF", "WEBP", "PNG", "TIFF", "MPO")
SIDES = (0, 1, 2, 255, 256, 20_000, 65_535, 2**31 - 1, 2**32 - 1)


def drawn(mode: str, width: int, height: int, random: Random) -> Image.Image:
    """Noise in a mode of PIL's."""
    noise = np.random.default_rng(random.randrange(2**32))
    if mode == "I;16":
        return Image.fromarray(noise.integers(0, 65536, (height, width), dtype=np.uint16))
    if mode == "F":
        return Image.fromarray(noise.random((height, width), dtype=np.float32))
    return Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def encoded(random: Random) -> tuple[str, bytes, tuple[int, int]]:
    """A format, the bytes of a picture in it, and the picture's size."""
    kind = random.choice([name for name in MODES if name in Image.SAVE])
    width, height = random.choice([(random.randint(1, 60), random.randint(1, 60))] * 9 + [(1, random.randint(1, 400))])
    if kind == "ICO":
        width = height = random.choice([16, 32, 48])  # PIL writes no others
    picture = drawn(random.choice(MODES[kind]), width, height, random)
    options: dict[str, object] = {}
    if random.random() < 0.3 and kind in ("PNG", "JPEG", "WEBP", "TIFF", "MPO"):
        exif = Image.Exif()
        exif[0x0112] = random.choice([1, 2, 3, 5, 6, 8, 0, 9, 65535])
        options["exif"] = exif.tobytes()
    if random.random() < 0.3 and kind in ANIMATED:
        more = [drawn(picture.mode, width, height, random) for _ in range(random.randint(1, 3))]
        options |= {"save_all": True, "append_images": more}
    if random.random() < 0.3 and kind == "TIFF" and "exif" not in options and picture.mode not in ("F", "YCbCr", "LA"):
        options["compression"] = random.choice(["tiff_lzw", "tiff_adobe_deflate", "packbits"])
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return kind, file.getvalue(), picture.size


def lying(kind: str, data: bytes, size: tuple[int, int], random: Random) -> bytes:
    """The same bytes with another width or height wherever the header has one, and its checksum put right."""
    if kind == "PPM":
        return data.replace(b"%d %d" % size, b"%d %d" % (random.choice(SIDES), random.choice(SIDES)), 1)
    changed = bytearray(data)
    for side in size:
        form = random.choice(["<H", ">H", "<I", ">I"])
        at = data.find(struct.pack(form, side), 4, 400)
        if at >= 0:
            lie = random.choice(SIDES) % 256 ** struct.calcsize(form)
            changed[at : at + struct.calcsize(form)] = struct.pack(form, lie)
    if kind == "PNG":
        changed[29:33] = struct.pack(">I", zlib.crc32(bytes(changed[12:29])))
    return bytes(changed)


def pixels(source: object) -> np.ndarray | str:
    """What it is read as, or the kind of error where it is refused."""
    try:
        return np.asarray(to_rgb(source))
    except (OSError, ValueError, TypeError):
        return "refused"


def differs(data: bytes, file: Path, got: Image.Image) -> str | None:
    """What is wrong with a picture that was read from a file."""
    if got.mode != "RGB" or got.size != read_size(file):
        return f"{got.mode} of {got.size}; the header says {read_size(file)}"
    others = {"a text": pixels(str(file)), "bytes": pixels(data)}
    try:
        with Image.open(file) as opened:
            others["PIL"] = pixels(opened)
    except Exception as error:  # what PIL says of its own
        others["PIL"] = repr(error)
    wrong = [name for name, other in others.items() if not np.array_equal(np.asarray(got), other)]
    return f"another picture as {', '.join(wrong)}" if wrong else None


def test_picture_files(campaign: Campaign) -> None:
    file = Path("picture")
    for random in campaign.rounds(250):
        kind, data, size = encoded(random)
        how = random.choice(["whole", "damaged", "damaged", "damaged", "lying"])
        if how != "whole":
            data = damaged(data, random) if how == "damaged" else lying(kind, data, size, random)
        file.write_bytes(data)
        what = f"{how} {kind} {data[:60]!r}"
        got = campaign.offer(what, lambda: to_rgb(file), ["picture"], lambda got, data=data: differs(data, file, got))
        if got is None:
            if how == "whole" and max(size) <= 200 * min(size):
                campaign.fault("wrong", what, "refused, and nothing is wrong with it")
            campaign.offer(f"bytes of a {what}", lambda data=data: to_rgb(data), ["image: "])
            campaign.offer(f"size of a {what}", lambda: read_size(file), ["picture"])


def expected(values: np.ndarray) -> np.ndarray | None:
    """The eight bits of an array ``(H, W)`` or ``(H, W, 3)``, the plain way; None where it should be refused."""
    if values.dtype == np.uint8:
        eight = values
    elif values.dtype == bool:
        eight = values.astype(np.uint8) * 255
    elif values.dtype == np.uint16:
        eight = (values // 257 if values.ndim == 2 else values >> 8).astype(np.uint8)
    elif values.dtype.kind == "f":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            return None
        eight = np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    else:
        return None
    return np.stack([eight] * 3, -1) if eight.ndim == 2 else eight


DTYPES = ("uint8", "bool", "uint16", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint32", "complex64", "object", "U3", "datetime64[s]")  # fmt: skip


def array(random: Random) -> np.ndarray:
    """An array of any dtype and shape, sometimes with a value that is none."""
    noise = np.random.default_rng(random.randrange(2**32))
    height, width = random.randint(1, 40), random.randint(1, 40)
    shape = random.choice(
        [(height, width)] * 8 + [(height, width, 3)] * 8
        + [(3, height + 5, width + 5), (height, width, 2), (0, width), (height, 0, 3), (), (height,), (1, height, width, 3), (height, width, 5), (1, 900), (900, 1, 3)]
    )  # fmt: skip
    kind = random.choice(DTYPES[:6] if random.random() < 0.7 else DTYPES)
    values = np.asarray(noise.random(shape)) * (1 if kind.startswith(("f", "c")) else 2 if kind == "bool" else 256)
    held = np.asarray(values.astype(np.uint8).astype(kind) if kind[0] in "oUd" else values.astype(kind))
    if kind.startswith("f") and held.size and random.random() < 0.4:
        spoilt = random.choice([np.nan, np.inf, -np.inf, -1e-3, 1.001, 255, -0.0])
        held.flat[random.randrange(held.size)] = spoilt
    match random.randrange(5):
        case 0:
            return held[::-1] if held.ndim else held
        case 1 if held.ndim >= 2:
            return np.asfortranarray(held)
        case 2:
            held.flags.writeable = False
    return held


def tensor_of(values: np.ndarray) -> torch.Tensor | None:
    try:
        return torch.from_numpy(values.copy())
    except TypeError:
        return None


def test_arrays_and_tensors(campaign: Campaign) -> None:
    for random in campaign.rounds(250):
        values = array(random)
        plain = values.ndim in (2, 3) and values.size > 0 and (values.ndim == 2 or values.shape[-1] == 3)
        wanted = expected(values) if plain and max(values.shape[:2]) <= 200 * min(values.shape[:2]) else None
        known = values.ndim != 3 or plain

        def right(got: Image.Image, wanted: np.ndarray | None = wanted, known: bool = known) -> str | None:
            if not known:
                return None
            if wanted is None:
                return "taken, and it is no picture"
            return None if np.array_equal(np.asarray(got), wanted) else "other pixels"

        what = f"array {values.dtype} {values.shape}"
        got = campaign.offer(what, lambda values=values: to_rgb(values), ["image: "], right)
        if got is None and wanted is not None:
            campaign.fault("wrong", what, "refused, and nothing is wrong with it")
        tensor = tensor_of(values)
        if tensor is not None and (values.ndim == 2 or wanted is None or min(values.shape[0], 5) == 5):
            campaign.offer(f"tensor of {what}", lambda tensor=tensor: to_rgb(tensor), ["image: "], right)


def test_things_that_are_no_pictures(campaign: Campaign) -> None:
    things = [None, 3, {}, [], object(), b"", "", ".", "\x00", "x" * 3000, "nowhere\udcff", Path("/proc/self/mem"), Path("/dev/zero"), torch.empty(3, 5, 5, device="meta"), torch.rand(3, 5, 5).to_sparse(), bytearray(b"x"), memoryview(b"x"), np.float32(0.5), torch.rand(3, 5, 5).requires_grad_()]  # fmt: skip
    for random in campaign.rounds(len(things)):
        thing = things[campaign.round] if campaign.round < len(things) else random.choice(things)
        campaign.offer(f"{thing!r:.80}", lambda thing=thing: to_rgb(thing), ["image"])


def uncovered(processor: QlipImageProcessor, picture: Image.Image, budget: int | None) -> str | None:
    """What is wrong with the leaves of a picture: they must tile its grid, and keep to the budget."""
    seen, leaves = processor.cut(picture)
    if budget is not None and len(leaves) > budget:
        return f"{len(leaves)} tokens for a budget of {budget}"
    rows, cols = leaves.grid
    painted = torch.zeros(rows, cols, dtype=torch.int64)
    for row, col, size in zip(leaves.row.tolist(), leaves.col.tolist(), leaves.size.tolist(), strict=True):
        painted[max(row, 0) : row + size, max(col, 0) : col + size] += 1
    if not (painted == 1).all():
        return f"leaves that do not tile a grid of {rows} x {cols}"
    unit = processor.quadtree.patch_size
    return (
        None
        if tuple(seen.floats.shape) == (3, rows * unit, cols * unit) and seen.floats.isfinite().all()
        else "other pixels"
    )


def test_budgets_and_score_maps(campaign: Campaign) -> None:
    shapes = [(1, 1), (1, 40), (300, 2), (640, 480), (2000, 12), (199, 1), (31, 977), (13, 13), (1400, 1400)]
    for random in campaign.rounds(60):
        width, height = random.choice(shapes)
        picture = drawn("RGB", width, height, random) if random.random() < 0.6 else Image.new("RGB", (width, height))
        budget = random.choice([None, 1, 2, 3, 7, 64, 577, 10_000_000])
        tree = Quadtree(alpha=random.choice([0, 0.1, 1e9]), max_tokens=budget, cover=random.choice(["full", "roots"]), criterion=random.choice(["derivative", "gradient", "reconstruction", "uniform", "random"]))  # fmt: skip
        settings = QlipImageProcessor(size=random.choice([None, 14, 56, 336]), crop=random.choice(["patch", "square", "units"]), quadtree=tree, pad=random.choice([None, "square"]), fit=random.choice(["prune", "scale"]))  # fmt: skip
        score = random.choice([None, np.zeros((4, 4)), np.eye(7), np.full((2, 3), np.nan), -np.eye(3), np.ones((0, 3)), "map", np.ones(5), [[1, 2], [3]], torch.eye(4, dtype=torch.bfloat16), np.full((3, 3), 1e308), np.ones((2, 2), complex), np.array([["a"]]), torch.eye(3, dtype=torch.bool), np.eye(3, dtype=np.uint16)])  # fmt: skip
        what = f"{width} x {height} px, {settings}, score {score!r:.60}"
        fitted = campaign.offer(
            what, lambda settings=settings, score=score: settings.each(1, score=score)[0], ["score: "]
        )
        if fitted is not None:
            campaign.offer(
                what, lambda fitted=fitted, picture=picture: (fitted, picture, fitted.cut(picture)), ["image: "],
                lambda got, budget=budget: uncovered(got[0], got[1], budget),
            )  # fmt: skip
