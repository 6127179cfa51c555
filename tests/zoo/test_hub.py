"""The real huggingface_hub client against a hub on loopback."""

import shutil

import pytest
import safetensors.torch

from qlip.files import sha256
from qlip.zoo.store import load_folder, save
from tests.zoo.fake_hub import TOKEN, FakeHub
from tests.zoo.helpers import describe, same, tiny_position
from tests.zoo.hub_client import Client


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A good entry, and copies of it spoilt in one way each."""
    root = tmp_path_factory.mktemp("made")
    position = tiny_position()
    save(position, root / "good", describe(position))
    for name in ("lacks-tensor", "lacks-weights", "lacks-config", "later"):
        shutil.copytree(root / "good", root / name)
    tensors = safetensors.torch.load_file(root / "good" / "model.safetensors")
    del tensors["readout.bias"]
    safetensors.torch.save_file(tensors, root / "lacks-tensor" / "model.safetensors")
    (root / "lacks-weights" / "model.safetensors").rename(root / "lacks-weights" / "pytorch_model.bin")
    (root / "lacks-config" / "config.json").unlink()
    return root


@pytest.fixture(scope="module")
def hub(made):
    hub = FakeHub()
    for folder in made.iterdir():
        hub.add(f"me/{folder.name}", folder)
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Working directory and cache of both clients."""
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def clients(hub, workplace):
    """Both at once, for it is starting them that takes time."""
    both = [
        Client(workplace, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN),
        Client(workplace, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1"),
    ]
    yield both
    for client in both:
        client.close()


@pytest.fixture
def online(clients):
    return clients[0]


@pytest.fixture
def offline(clients):
    return clients[1]


def pulled(client, expression):
    """Pull, and give the folder."""
    folder = client(expression)
    assert isinstance(folder, str), folder
    return folder


def test_pull_from_the_hub_is_exact(online, workplace, made, hub):
    folder = workplace / pulled(online, "zoo.pull('me/good')")
    assert folder == workplace / "checkpoints" / "good"
    assert same(load_folder(folder), tiny_position())
    assert (folder / "README.md").read_bytes() == (made / "good" / "README.md").read_bytes()


def test_load_from_the_hub(online):
    assert online("zoo.load('me/good').readout.out_features") == 8


def test_only_the_files_of_an_entry_are_fetched(online, hub):
    hub.repos["me/large"] = {**hub.repos["me/good"], "optimizer.bin": b"0" * 1000}
    online("zoo.load('me/large').dim")
    fetched = {request.rpartition("/")[2] for request in hub.requests if "me/large/resolve" in request}
    assert fetched == {"config.json", "model.safetensors", "README.md"}


def test_a_revision_is_asked_for(online, hub):
    commit = hub.commit("me/good")
    assert online(f"zoo.load('me/good@{commit}').dim") == 8
    kind, message = online("zoo.load('me/good@v9')")
    assert (kind, "me/good@v9: the repository has no such revision" in message) == ("NotFoundError", True)


def test_a_missing_repository(online, hub):
    kind, message = online("zoo.load('me/absent')")
    assert kind == "NotFoundError"
    assert message.startswith(f"me/absent: no such repository on {hub.url}, or it is private. Entries in checkpoints/")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("lacks-tensor", "model.safetensors: missing tensors readout.bias"),
        ("lacks-weights", "model.safetensors: not there"),
        ("lacks-config", "config.json: not there"),
    ],
)
def test_a_damaged_repository_does_not_load_and_is_not_pulled(online, workplace, name, problem):
    for verb in ("load", "pull"):
        kind, message = online(f"zoo.{verb}('me/{name}')")
        assert kind == "EntryError"
        assert problem in message
    assert not (workplace / "checkpoints" / name).exists()


def register(client, name, hub_id, checksum):
    """The one line that publishes an entry."""
    client(f"REGISTRY.update({{{name!r}: Entry({name!r}, {hub_id!r}, 'trained', sha256={checksum!r})}})")


def test_a_registered_name_with_its_checksum(online, made):
    register(online, "registered", "me/good", sha256(made / "good" / "model.safetensors"))
    assert online("zoo.load('registered').dim") == 8


def test_a_wrong_checksum_stops(online, made, workplace):
    register(online, "forged", "me/good", "0" * 64)
    kind, message = online("zoo.pull('forged')")
    assert kind == "EntryError"
    assert f"has sha256 {sha256(made / 'good' / 'model.safetensors')}, registered is {'0' * 64}" in message
    assert not (workplace / "checkpoints" / "forged").exists()


def test_offline_says_what_runs_without_a_network(offline, hub):
    before = len(hub.requests)
    kind, message = offline("zoo.load('me/later')")
    assert kind == "NotFoundError"
    assert message.startswith(
        "me/later: HF_HUB_OFFLINE is set, and it is not in the local cache. Entries in checkpoints/"
    )
    assert "configs/quickstart.yaml" in message
    assert "\n" not in message
    assert len(hub.requests) == before


def test_offline_a_cached_entry_loads(online, offline):
    online("zoo.load('me/good').dim")
    assert offline("zoo.load('me/good').dim") == 8


def test_offline_a_hub_clip_cannot_be_solved(offline):
    kind, message = offline("zoo.load('solve:openai/clip-vit-base-patch32')")
    assert kind == "NotFoundError"
    assert message.startswith(
        "solve:openai/clip-vit-base-patch32: the CLIP openai/clip-vit-base-patch32 is in no folder"
    )
    assert "\n" not in message


def test_nobody_answers(online, hub):
    with hub.closed():
        kind, message = online("zoo.load('me/later')")
    assert kind == "NotFoundError"
    assert message.startswith(f"me/later: {hub.url} cannot be reached, and it is not in the local cache")
    assert online("zoo.load('me/later').dim") == 8


def test_nobody_answers_but_it_is_cached(online, hub):
    online("zoo.load('me/good').dim")
    with hub.closed():
        assert online("zoo.load('me/good').dim") == 8


def test_push_and_load_back(online, hub, made):
    assert online(f"zoo.push({str(made / 'good')!r}, 'me/pushed', True)") == f"{hub.url}/me/pushed"
    files = hub.repos["me/pushed"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert files["model.safetensors"] == (made / "good" / "model.safetensors").read_bytes()
    assert b"qlip.load('me/pushed')" in files["README.md"]
    assert b"qlip.load('good')" in (made / "good" / "README.md").read_bytes()
    assert online("zoo.load('me/pushed').dim") == 8


def test_private_is_asked_for_and_otherwise_left_to_the_owners_default(online, hub, made):
    online(f"zoo.push({str(made / 'good')!r}, 'me/secret', True)")
    online(f"zoo.push({str(made / 'good')!r}, 'me/default')")
    assert hub.private == {**hub.private, "me/secret": "private", "me/default": None}


@pytest.mark.parametrize("missing", ["network", "token"])
def test_push_says_what_it_needs(missing, online, offline, hub, made):
    if missing == "token":
        online("environ.pop('HF_TOKEN')")
    kind, message = (offline if missing == "network" else online)(f"zoo.push({str(made / 'good')!r}, 'me/never')")
    online(f"environ.update(HF_TOKEN={TOKEN!r})")
    assert "me/never" not in hub.repos
    assert kind == "ConnectionError"
    assert "me/never: not uploaded" in message
    assert "hf auth login" in message
    assert "\n" not in message
