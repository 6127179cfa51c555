"""Whatever moves, batches and trains the inputs of a stock model does it to a converted model's, or says what helps."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from accelerate.utils import find_batch_size, send_to_device, slice_tensors
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.image_utils import ChannelDimension

import qlip
from qlip.images.pixels import PerImage
from tests.families.case import Case, answer
from tests.families.conftest import ONE
from tests.families.embedding_rows import clip, clip_processor
from tests.families.tiny_llava import scene


def flat(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested values."""
    if isinstance(value, torch.Tensor):
        yield value
    else:
        for part in value:
            yield from flat(part)


def test_inputs_of_every_family_move(case: Case):
    _, processor = case.convert()
    inputs = case.inputs(processor, case.pictures, slice(2))
    kinds = [each.dtype for value in inputs.values() for each in flat(value)]
    for moved in ({name: value.to("meta") for name, value in inputs.items()}, copy.copy(inputs).to("meta")):
        assert {each.device.type for value in moved.values() for each in flat(value)} == {"meta"}
        assert [each.dtype for value in moved.values() for each in flat(value)] == kinds
    half = copy.copy(inputs).to("cpu", torch.bfloat16)
    assert [each.dtype for value in half.values() for each in flat(value)] == [
        torch.bfloat16 if kind == torch.float32 else kind for kind in kinds
    ]
    again = pickle.loads(pickle.dumps(inputs))
    assert all(map(torch.equal, flat(again["pixel_values"]), flat(inputs["pixel_values"])))


def test_moved_inputs_are_answered_alike(own_pair, pictures):
    model, processor = own_pair
    inputs = processor(images=pictures[0], text=ONE, return_tensors="pt")
    expected = answer(model, inputs)
    assert answer(model, {name: value.to("cpu") for name, value in inputs.items()}) == expected
    assert answer(model, dict(inputs) | {"pixel_values": list(inputs["pixel_values"])}) == expected


def test_image_processors_return_what_moves(pair, pictures):
    inputs = pair[1].image_processor(pictures)
    assert {each.device.type for each in flat(inputs.to("meta")["pixel_values"])} == {"meta"}
    assert len(inputs["pixel_values"][1:]) == 2


def test_accelerate_leaves_images_whole(pair, pictures):
    """It cuts every tensor that it finds in lists: of an image it would keep as many patches as there are prompts."""
    inputs = pair[1](images=pictures[:2], text=[ONE] * 2, return_tensors="pt", padding=True)
    assert find_batch_size(inputs) == 2
    cut = slice_tensors(inputs, slice(0, 2))
    assert all(map(torch.equal, flat(cut["pixel_values"]), flat(inputs["pixel_values"])))
    assert {each.device.type for value in send_to_device(inputs, "meta").values() for each in flat(value)} == {"meta"}


ROWS = [{"image": scene(224 + 28 * i, 224, i), "text": ONE} for i in range(4)]


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(ROWS)


class Collate:
    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        texts, images = [row["text"] for row in rows], [row["image"] for row in rows]
        inputs = self.processor(images=images, text=texts, return_tensors="pt", padding=True, max_tokens=30)
        return {**inputs, "labels": inputs["input_ids"]}


class Losses(TrainerCallback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.losses += [logs["loss"]] if "loss" in logs else []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("data", [ROWS, Stream()], ids=["list", "stream"])
def test_the_trainer_of_transformers(own_pair, tmp_path, data, workers):
    model, processor = own_pair
    collate, seen = Collate(processor), Losses()
    with torch.no_grad():
        expected = [float(model(**collate(ROWS[i : i + 2])).loss) for i in (0, 2)]
    options = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, per_device_eval_batch_size=2, learning_rate=0.0,
        logging_steps=1, report_to="none", use_cpu=True, remove_unused_columns=False, dataloader_num_workers=workers * (data is ROWS),
        save_strategy="no", train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = Trainer(model, options, collate, data, ROWS, callbacks=[seen])
    trainer.train()
    torch.testing.assert_close(torch.tensor(seen.losses), torch.tensor(expected), rtol=1e-3, atol=1e-3)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(expected) / 2, rel=1e-3)


def test_a_data_set_is_prepared_when_it_is_read(pair):
    rows = datasets.Dataset.from_dict({"image": [np.asarray(row["image"]) for row in ROWS[:2]], "text": [ONE] * 2})

    def prepare(batch):
        """Of several rows, or of one."""
        if isinstance(batch["text"], str):
            return pair[1](images=np.asarray(batch["image"], np.uint8), text=batch["text"])
        images = [np.asarray(image, np.uint8) for image in batch["image"]]
        return pair[1](images=images, text=batch["text"], return_tensors="pt", padding=True)

    with pytest.raises(TypeError, match=r"dataset\.with_transform\(function\) in place of dataset\.map"):
        rows.map(prepare)
    with pytest.raises(TypeError, match="PerImage"):  # datasets looks at types first there
        rows.map(prepare, batched=True)
    lazy, images = rows.with_transform(prepare), [row["image"] for row in ROWS[:2]]
    expected = pair[0](**prepare({"image": images, "text": [ONE] * 2})).logits
    assert isinstance(lazy[:]["pixel_values"], PerImage)
    assert torch.equal(pair[0](**lazy[:]).logits, expected)

    def collate(rows):
        """Rows that were prepared together need no more padding; the model takes a list as well."""
        ids, mask = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "attention_mask"))
        return {"input_ids": ids, "attention_mask": mask, "pixel_values": [row["pixel_values"] for row in rows]}

    same = rows.select([0, 0]).with_transform(prepare)
    (batch,) = DataLoader(same, batch_size=2, collate_fn=collate)
    torch.testing.assert_close(pair[0](**batch).logits, pair[0](**same[:]).logits)


PICTURE = scene(360, 240, 1)
ARRAY = np.asarray(PICTURE)
FIRST = np.ascontiguousarray(ARRAY.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (ARRAY.astype(np.float32), {"do_rescale": True}),
        (torch.from_numpy(FIRST).float(), {"do_rescale": True}),
        (torch.from_numpy(FIRST).bfloat16(), {"do_rescale": True}),
        (ARRAY.astype(np.int64), {"do_rescale": True}),
        (ARRAY, {"do_rescale": True, "do_convert_rgb": True, "do_normalize": True, "do_resize": True}),
        (PICTURE, {"do_rescale": True}),
        (ARRAY / 255, {"do_rescale": False}),
        (ARRAY.astype(np.float32)[None], {"do_rescale": True}),
        (FIRST, {}),
        (FIRST[None], {}),
        (FIRST, {"input_data_format": "channels_first"}),
        (ARRAY, {"input_data_format": ChannelDimension.LAST}),
        (torch.from_numpy(ARRAY.copy()), {"input_data_format": "channels_last"}),
        (FIRST.astype(np.float64), {"do_rescale": True, "input_data_format": "channels_first"}),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else type(value).__name__,
)
def test_values_are_what_the_call_says(pair, processor, image, options):
    expected, got = (pair[1](images=each, text=ONE, **how) for each, how in ((PICTURE, {}), (image, options)))
    assert all(map(torch.equal, flat(got["pixel_values"]), flat(expected["pixel_values"])))
    assert pair[1].count_tokens(image, **options) == pair[1].count_tokens(PICTURE)
    plain, stock = (
        processor(images=each, text=ONE, return_tensors="pt", **how)["pixel_values"]
        for each, how in ((PICTURE, {}), (image, options))
    )
    assert (
        stock - plain
    ).abs().mean() < 0.02  # it means the same to the stock processor, whose floats overshoot at edges


GREY = np.array(PICTURE.convert("L"))


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (GREY.astype(np.uint16), {"do_rescale": True}),
        (GREY.astype(np.int64), {"do_rescale": True}),
        (GREY.astype(np.float32), {"do_rescale": True}),
        (torch.from_numpy(GREY).float(), {"do_rescale": True}),
        ([GREY / 255], {"do_rescale": False}),
        (GREY, {"input_data_format": "channels_first"}),
        (GREY, {"input_data_format": "channels_last"}),
        (torch.from_numpy(GREY), {"input_data_format": "channels_last"}),
    ],
)
def test_values_of_arrays_without_channels_are_what_the_call_says(pair, image, options):
    expected, got = pair[1].image_processor(GREY), pair[1].image_processor(image, **options)
    assert all(map(torch.equal, flat(got["pixel_values"]), flat(expected["pixel_values"])))


def test_where_the_shape_does_not_tell_the_call_does(pair):
    """Three rows of three channels, or three channels of three columns."""
    cube = np.random.default_rng(0).integers(0, 256, (3, 40, 3), np.uint8)
    first, last = (pair[1].image_processor(cube, input_data_format=f"channels_{which}") for which in ("first", "last"))
    tensor = pair[1].image_processor(torch.from_numpy(cube), input_data_format="channels_last")
    assert all(map(torch.equal, flat(tensor["pixel_values"]), flat(last["pixel_values"])))
    as_told = pair[1].image_processor(np.ascontiguousarray(cube.transpose(1, 2, 0)))
    assert all(map(torch.equal, flat(first["pixel_values"]), flat(as_told["pixel_values"])))
    assert first["pixel_values"][0][1][0, 3:].tolist() != last["pixel_values"][0][1][0, 3:].tolist()


def test_sizes_in_the_form_of_transformers(pair):
    size = {"shortest_edge": 112}
    expected = pair[1](images=PICTURE, text=ONE, size=112)["pixel_values"]
    for options in ({"size": size}, {"images_kwargs": {"size": size}}):
        assert all(map(torch.equal, flat(pair[1](images=PICTURE, text=ONE, **options)["pixel_values"]), flat(expected)))
    assert pair[1].count_tokens(PICTURE, size=size) == [len(expected[0][0])]
    most = pair[1]._get_num_multimodal_tokens
    assert most(image_sizes=[(240, 360)], size=size) == most(image_sizes=[(240, 360)], size=112)
    native = pair[1](images=PICTURE, text=ONE, do_resize=False)["pixel_values"]
    assert all(map(torch.equal, flat(native), flat(pair[1](images=PICTURE, text=ONE, size=None)["pixel_values"])))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (PICTURE, {"size": {"height": 9, "width": 9}}, "size: got .*takes {'shortest_edge': pixels}"),
        (PICTURE, {"size": {"shortest_edge": 9, "longest_edge": 9}}, "size: got .*max_tokens bounds"),
        (PICTURE, {"do_normalize": False}, "do_normalize: got False"),
        (PICTURE, {"do_rescale": False}, "do_rescale: got False for a picture that does not hold floats"),
        (ARRAY, {"do_rescale": False}, "do_rescale: got False for a picture that does not hold floats"),
        (ARRAY / 255, {"do_rescale": True}, "do_rescale: got True for values from 0 to 1; .*would become black"),
        (ARRAY * 2.0, {"do_rescale": True}, "do_rescale: got True for values from 0 to 510"),
        (ARRAY * np.nan, {"do_rescale": True}, "do_rescale: got True for values from nan"),
        (ARRAY.astype(float), {}, "image: got floats from 0 to 255; .*do_rescale=True of a converted processor"),
        (ARRAY, {"input_data_format": "channels_first"}, "input_data_format: got 'channels_first' for an array of shape"),
        (ARRAY, {"input_data_format": "none"}, "input_data_format: got 'none'; takes 'channels_first' or"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(pair, image, options, message):
    with pytest.raises(ValueError, match=message):
        pair[1](images=image, text=ONE, **options)


def test_floats_in_pil_are_read_as_told(pair):
    grey = PICTURE.convert("L")
    expected = pair[1](images=grey, text=ONE)["pixel_values"]
    got = pair[1](images=grey.convert("F"), text=ONE, do_rescale=True)["pixel_values"]
    assert all(map(torch.equal, flat(got), flat(expected)))


@pytest.mark.parametrize("part", ["model", "vision_model"])
def test_replicas_of_data_parallel_say_what_to_do(own_pair, pictures, part):
    """One would get half of the prompts, and all of the images."""
    if part == "model":
        model, processor = own_pair
        inputs = processor(images=pictures[0], text=ONE, return_tensors="pt")
        replica = model.model._replicate_for_data_parallel()
    else:
        model, processor = qlip.convert(clip(), clip_processor(), position="zero")
        inputs = processor.image_processor(pictures)
        replica = model.vision_model._replicate_for_data_parallel()
    with pytest.raises(RuntimeError, match=r"DataParallel cannot deal out images .*torchrun"):
        replica(**inputs)
