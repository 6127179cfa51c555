"""Both arms of every family, end to end: the stock one is transformers alone, the converted one is asked the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from qlip.cli import main
from qlip.evaluation.benchmarks import get_benchmark, pocket
from qlip.evaluation.cell import Vision
from qlip.evaluation.journal import Journal
from qlip.evaluation.results import find_results, group_results
from qlip.evaluation.run.arm import PreparedQuestion, load_arm
from qlip.evaluation.run.predict import Answering
from qlip.evaluation.run.prompts import CHATS
from qlip.images.read import to_rgb
from tests.evaluation.tiny_families import MAKERS, TEMPLATES, save_tiny
from tests.families.row import PLACEHOLDER
from tests.families.rows import ROWS
from tests.families.tiny_llava import scene

BUDGET = 100
FREE = {  # families whose own pictures have any size, and what keeps them to the budget if one option does
    "qwen2.5": {"size": {"shortest_edge": 56 * 56, "longest_edge": BUDGET * 28 * 28}},
    "gemma4": {"max_soft_tokens": 70},
    "mistral3": {},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five drawn questions with their pictures, of different sizes."""
    folder = tmp_path_factory.mktemp("vstar-pocket")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pocket, "QUESTIONS", 5)
        pocket.write_vstar(folder)
    return folder


@pytest.fixture(scope="module", params=MAKERS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(family, tmp_path_factory.mktemp("model"))


def vqa(folder: Path, data: Path, out: Path, **options: object) -> list[dict[str, Any]]:
    quick = {"benchmark": "vstar-pocket", "limit": 4, "max_new_tokens": 5, "batch_size": 3, "accelerator": "cpu"}
    given = {**quick, "workers": 0, "model": folder, "data": data, "out": out, **options}
    main(["vqa", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())])
    return sorted((json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()), key=by_id)


def by_id(record: dict[str, Any]) -> str:
    return record["id"]


def stock(folder: Path) -> tuple[Any, Any]:
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def image_tokens(family: str, input_ids: Any) -> int:
    """Tokens of one prompt that an image takes."""
    counted = ROWS[family].counted if family in ROWS else (PLACEHOLDER,)
    return sum(int(token) in counted for token in input_ids)


def picture_of(record: dict[str, Any], data: Path) -> Any:
    source = get_benchmark("vstar-pocket").load(data)
    return to_rgb(source.image(int(record["id"].split(":")[0])))


@torch.no_grad()
def test_both_arms_from_the_command_line(family, folder, data, tmp_path):
    own = vqa(folder, data, tmp_path / "own", baseline="own")
    ours = vqa(folder, data, tmp_path / "ours", max_tokens=BUDGET, cover="full", size="null")
    model, processor = stock(folder)
    for record in own:
        image = picture_of(record, data)
        if family in TEMPLATES:  # transformers renders, counts and tokenises
            content = [{"type": "image", "image": image}, {"type": "text", "text": record["prompt"]}]
            chat, how = [{"role": "user", "content": content}], {"tokenize": True, "return_dict": True}
            inputs = processor.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", **how)
        else:
            inputs = processor(images=image, text=f"<image>{record['prompt']}", return_tensors="pt")
            inputs.pop("labels", None)
        assert record["tokens"] == record["baseline_tokens"] == image_tokens(family, inputs["input_ids"][0])
        length = inputs["input_ids"].shape[1]
        assert record["prompt_tokens"] == length
        answer = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, length:]
        assert record["raw"] == processor.tokenizer.decode(answer, skip_special_tokens=True).strip()
    for stock_record, record in zip(own, ours, strict=True):
        assert record["baseline_tokens"] == stock_record["tokens"]
        assert 0 < record["tokens"] <= BUDGET
        words = {name: r["prompt_tokens"] - r["tokens"] for name, r in (("own", stock_record), ("ours", record))}
        assert words["own"] == words["ours"]
    assert max(record["tokens"] for record in ours) > (30 if family == "gemma3" else BUDGET - 3)
    assert len({record["baseline_tokens"] for record in own}) == (1 if family in ("gemma3", "paligemma") else 3)
    (group,) = group_results(find_results(tmp_path))
    assert group.baseline is group.rival(group.cells[0]) is group.baselines["own"]
    counts = [record["tokens"] for record in own]
    assert group.cells[0].percent == pytest.approx(100 * sum(r["tokens"] for r in ours) / sum(counts))


@pytest.mark.parametrize(
    "options", [{"baseline": "own"}, {"max_tokens": 150, "cover": "full"}], ids=["own", "converted"]
)
@torch.no_grad()
def test_likelihood_is_the_loss_of_transformers(family, folder, data, tmp_path, options):
    arm = load_arm(str(folder), Vision(**options))
    benchmark = get_benchmark("vstar-pocket")
    answering = Answering(arm, benchmark, "llava", 5, Journal(tmp_path / "unused"))
    image = picture_of({"id": "1:"}, data)
    sentences = ["word11 left", "word12 word13 word14 right", "word15"]
    text = arm.prompt("what is there", "llava")
    losses = answering.losses(arm.prepare(image, text, 0), sentences)
    expected = torch.tensor([_loss(arm, image, text, sentence) for sentence in sentences])
    assert (losses - expected).abs().max() < 1e-4
    assert expected.std() > 0.01
    records = vqa(folder, data, tmp_path / "run", scoring="likelihood", **options)
    questions = {q.id: q for q in benchmark.questions(benchmark.load(data), "llava", "likelihood")}
    for record in records:
        question = questions[record["id"]]
        item = arm.prepare(picture_of(record, data), arm.prompt(question.prompt, "llava"), 0)
        assert record["raw"] == answering.likeliest(question, item)


def _loss(arm: Any, image: Any, text: str, sentence: str) -> float:
    """The mean loss of a sentence after a prompt, all in one piece, as in training."""
    single = {"add_special_tokens": False} if text.startswith("<s>") else {}
    if type(arm.model).__name__.startswith("PaliGemma"):  # its own way to tell an answer from a prompt that looks ahead
        inputs = arm.processor(images=[image], text=[text], suffix=[sentence], return_tensors="pt")
        inputs["labels"][inputs["input_ids"] == 2] = -100  # it adds the end, which we do not score
    else:
        inputs = arm.processor(images=[image], text=[f"{text} {sentence}"], return_tensors="pt", **single)
        labels = inputs["input_ids"].clone()
        labels[:, : -len(sentence.split())] = -100
        inputs["labels"] = labels
    logits = arm.model(**inputs).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, inputs["labels"][0, 1:], ignore_index=-100).item()


def test_the_stock_arm_scales_down_to_a_budget_where_the_family_can(family, folder, data, tmp_path):
    if family not in FREE:
        with pytest.raises(SystemExit, match=r"max_tokens: got 20 for the stock model, whose .* has no option"):
            vqa(folder, data, tmp_path, baseline="own", max_tokens=20)
        return
    whole = vqa(folder, data, tmp_path / "own", baseline="own")
    small = vqa(folder, data, tmp_path / "small", baseline="own", max_tokens=BUDGET)
    vqa(folder, data, tmp_path / "ours", max_tokens=BUDGET, cover="full")
    _, processor = stock(folder)
    for record, full in zip(small, whole, strict=True):
        if FREE[family]:
            options = {"images": [picture_of(record, data)], "text": [processor.image_token], **FREE[family]}
            count = image_tokens(family, processor(**options)["input_ids"][0])
            assert record["tokens"] == min(count, full["tokens"])
        assert 0.5 * BUDGET < record["tokens"] <= BUDGET or record["tokens"] == full["tokens"]
        assert record["baseline_tokens"] == full["tokens"]
    assert any(record["tokens"] < record["baseline_tokens"] for record in small)
    (group,) = group_results(find_results(tmp_path))
    assert group.baseline is group.baselines["own"]
    assert group.rival(group.cells[0]) is group.baselines[f"own, {BUDGET} tokens"]


@torch.no_grad()
def test_pictures_of_different_budgets_share_a_batch(tmp_path):
    """Gemma 4 pads each to its own budget, and -1 is no place."""
    arm = load_arm(str(save_tiny("gemma4", tmp_path)), Vision(baseline="own"))
    text = arm.prompt("what is there", "llava")
    ours = [arm.prepare(scene(*size, seed), text, 0) for seed, size in enumerate(((500, 500), (700, 400)))]
    small = {"images_kwargs": {"max_soft_tokens": 70}}
    inputs = arm.processor(images=[scene(300, 300, 2)], text=[text], return_tensors="pt", **small)
    items = [*ours, PreparedQuestion(inputs, 0, 0)]
    logits = arm.model(**arm.collate(items)).logits
    for item, row in zip(items, logits, strict=True):
        own = arm.model(**item.inputs).logits[0]
        assert (row[-len(own) :] - own).abs().max() < 1e-4


@pytest.mark.parametrize("baseline", ["own", None])
@torch.no_grad()
def test_questions_about_several_pictures_share_a_batch(family, folder, baseline):
    budget = BUDGET if baseline is None or family in FREE else None
    arm = load_arm(str(folder), Vision(baseline=baseline, max_tokens=budget))
    pictures = [scene(500, 300, 0), scene(280, 420, 1)]
    items = [
        arm.prepare(given, arm.prompt("what is there", "llava", len(given)), 0) for given in (pictures, pictures[:1])
    ]
    alone = [arm.prepare(picture, arm.prompt("what is there", "llava"), 0) for picture in pictures]
    assert items[0].baseline_tokens == sum(item.baseline_tokens for item in alone)
    if baseline is None:
        assert items[0].tokens == sum(item.tokens for item in alone)
    assert items[0].tokens <= 2 * (budget or items[0].tokens)
    assert items[0].tokens > items[1].tokens
    logits = arm.model(**arm.collate(items)).logits
    for item, row in zip(items, logits, strict=True):
        own = arm.model(**item.inputs).logits[0]
        assert (row[-len(own) :] - own).abs().max() < 1e-3


def test_crop_and_pad_are_llavas(family, folder, data, tmp_path):
    with pytest.raises(SystemExit, match=r"baseline: got 'pad', which is for LLaVA-1.5; for a .* takes 'own'"):
        vqa(folder, data, tmp_path, baseline="pad")


def test_llava_keeps_its_words_and_other_models_of_its_class_have_theirs(model_folder):
    arm = load_arm(str(model_folder), Vision(baseline="own"))
    for style in ("llava", "vlmevalkit", "lmms"):
        assert arm.prompt("what {is} it ?", style) == CHATS[style].format("what {is} it ?")
    arm.processor.chat_template = "[INST] {{ messages[0]['content'][1]['text'] }} <image> [/INST]"
    try:
        assert arm.prompt("what ?", "llava") == "[INST] what ? <image> [/INST]"
        arm.processor.chat_template = None
        assert arm.prompt("what ?", "llava") == CHATS["llava"].format("what ?")
    finally:
        load_arm.__globals__["_load"].cache_clear()
