"""Structured files are read strictly, and whatever is wrong with one is an error that names it."""

import json
import os
import time
from random import Random

import pytest
import yaml

from qlip.cli import main
from qlip.configs import FOLDER
from qlip.structured import DamagedFileError, check_fields, is_a, read_json, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON of ours"),
        ("{", "no JSON of ours"),
        ('{"a": NaN}', "NaN is no finite number"),
        ('{"a": -Infinity}', "-Infinity is no finite number"),
        ('{"a": 1e999}', "1e999 is no finite number"),
        ('{"a": 1, "a": 2}', "a key comes twice"),
        ("9" * 5000, "no JSON of ours"),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
    ],
    ids=range(10),
)
def test_what_is_no_json_of_ours_is_refused(text, message, tmp_path):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(DamagedFileError, match=f"^{tmp_path / 'file.json'}: .*{message}"):
        read_json(tmp_path / "file.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "no YAML of ours"),
        ("a: !!python/object/apply:os.system [exit]", "no YAML of ours"),
        ("a: .nan", "holds nan"),
        ("a: &a [*a]", "within itself"),
        ("[" * 5000, "nested too deep"),
        (BOMB, "its anchors make more than"),
        (MERGES, "its anchors make more than"),
        ("? [1]\n: 2", "no YAML of ours"),
        ("a: 2020-13-45", "no YAML of ours"),
        ("a: 1\n---\nb: 2", "no YAML of ours"),
        ("a: 1\nb: {c: 1, d: 2,\n  c: 3}", "line 2: c comes twice"),
    ],
    ids=range(11),
)
def test_what_is_no_yaml_of_ours_is_refused_at_once(text, message, tmp_path):
    (tmp_path / "file.yaml").write_text(text)
    before = time.monotonic()
    with pytest.raises(DamagedFileError, match=f"^{tmp_path / 'file.yaml'}: .*{message}"):
        read_yaml(tmp_path / "file.yaml")
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_no_readable_file_is_named(read, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**33)
    for name in ("folder", "pipe", "circle", "large", "missing"):
        with pytest.raises(OSError, match=str(tmp_path / name)):
            read(tmp_path / name)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DamagedFileError, match="no text in UTF-8"):
        read(tmp_path / "bytes")


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_with_the_package_are_read(path):
    assert read_yaml(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("seed", range(200))
def test_damaged_files_are_read_or_are_one_error(seed, tmp_path):
    random = Random(seed)
    value = {"config": {"alpha": 0.1, "name": "ü", "sizes": [1, 2, None]}, "rows": [{"x": True}] * 3}
    data = bytearray(json.dumps(value).encode() if seed % 2 else yaml.safe_dump(value).encode())
    for _ in range(random.choice([1, 2, 8])):
        place = random.randrange(len(data))
        data[place : place + random.choice([0, 1, 5])] = bytes(random.choices(range(256), k=random.choice([0, 1, 4])))
    (tmp_path / "file").write_bytes(data)
    for read in (read_json, read_yaml):
        try:
            read(tmp_path / "file")
        except DamagedFileError as error:
            assert str(error).startswith(str(tmp_path / "file"))  # noqa: PT017


def test_types_of_fields():
    assert is_a(1, float)
    assert is_a(None, int | None)
    assert not is_a(True, int)
    assert not is_a(True, float)
    assert is_a(True, bool)
    assert not is_a("1", float | None)
    assert check_fields({"a": 1}, "file", {"a": float}, {"b": str}) == {"a": 1}
    for values, message in (
        ([], "file: holds a list; takes an object"),
        ({"c": 1, "a": 2}, "file: unknown c; takes a, b"),
        ({"b": "x"}, "file: missing a; takes a, b"),
        ({"a": True}, "file: a: got True; takes a number"),
        ({"a": 1, "b": 2}, "file: b: got 2; takes text or null"),
    ):
        with pytest.raises(DamagedFileError, match=message):
            check_fields(values, "file", {"a": float}, {"b": str | None})


@pytest.mark.parametrize("prog", ["train.py", "evaluate.py"])
def test_a_damaged_file_on_a_command_line_is_one_line(prog, tmp_path):
    (tmp_path / "bomb.yaml").write_text(BOMB)
    os.mkfifo(tmp_path / "pipe")
    verb = {"train.py": "fit", "evaluate.py": "vqa"}[prog]
    for option in (f"--config={tmp_path / 'bomb.yaml'}", f"--config={tmp_path / 'pipe'}"):
        with pytest.raises(SystemExit, match=f"^{prog}: {option.removeprefix('--config=')}: "):
            main([verb, option], prog)
