"""From a source to a position: solved, on disk, registered, or on the Hub; and entries from and to the Hub."""

import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from qlip.core.position import PositionMLP
from qlip.core.rules import shown
from qlip.files import read_whole, replacing_folder, sha256, write_text
from qlip.zoo.card import without_paths
from qlip.zoo.config import EntryError, ZooConfig
from qlip.zoo.entries import (
    CARD,
    CONFIG,
    DEFAULT_ROOT,
    FILES,
    WEIGHTS,
    UnknownSourceError,
    find_local,
    not_found,
)
from qlip.zoo.registry import REGISTRY, SOLVE, Entry, is_hub_id, is_name, split_revision
from qlip.zoo.solve import solve
from qlip.zoo.store import check_target, load_folder, save


def load(source: str | Path) -> PositionMLP:
    """Load a position.

    Args:
        source: The first of these that fits: ``solve:<CLIP id or folder>``, solved from CLIP's own weights, the same
            every time; a folder; the name of an entry in ``checkpoints/``; a registered name; a Hub id,
            ``owner/name`` or ``owner/name@revision``.

    Raises:
        NotFoundError: if there is none; says what was sought and what works without a network.
        EntryError: if it is damaged, or its checksum is not the registered one.
    """
    found = _find(str(source))
    return load_folder(found) if isinstance(found, Path) else solve(found)[0]


def pull(source: str, name: str | None = None, root: Path | str = DEFAULT_ROOT) -> Path:
    """Copy what `load` would load into the zoo, as ``root/name``; checked before it is put there.

    Args:
        source: As in `load`.
        name: Name of the new entry; the last part of the source if not given.
        root: Folder of the zoo.

    Raises:
        NotFoundError, EntryError: as `load`.
        FileExistsError: if ``root/name`` is something else.
    """
    name = name or Path(split_revision(source.removeprefix(SOLVE))[0]).name
    if not is_name(name):
        raise ValueError(
            f"name: got {shown(name)}; takes letters, digits, '.', '-' and '_', a letter or digit first; give one"
        )
    target, found = Path(root) / name, _find(source)
    if isinstance(found, str):
        position, config = solve(found)
        return save(position, target, config)
    load_folder(found)
    check_target(target)
    with replacing_folder(target, FILES) as new:
        read_whole(found, lambda: _copy(found, new))
    return target


def _copy(found: Path, new: Path) -> None:
    """Copy an entry, and check that the copy is one."""
    for file in FILES:
        if (found / file).is_file():
            shutil.copyfile(_own(found / file), new / file)
    load_folder(new)


def _own(file: Path) -> Path:
    """A file of an entry, if it is no link to somewhere else, whose content would then be copied or published.

    Raises:
        EntryError: if it is one; links of the Hub's cache into itself are none.
    """
    target = file.resolve()
    if not any(target.is_relative_to(root) for root in (file.parent.resolve(), Path(constants.HF_HUB_CACHE).resolve())):
        raise EntryError(f"{file}: is a link to {target}; an entry holds its own files. Put the file itself there")
    return file


def push(entry: str | Path, hub_id: str, private: bool = False) -> str:
    """Upload an entry to the Hub and return its address. Needs a token (``hf auth login``).

    The card's example then says ``hub_id`` in place of the local name.

    Args:
        entry: Name in ``checkpoints/``, or folder.
        hub_id: ``owner/name``; created if it is not there.
        private: Whether a new repository is private.

    Raises:
        NotFoundError: if there is no such entry.
        EntryError: if it does not load.
    """
    if not is_hub_id(hub_id):
        raise ValueError(f"hub_id: got {shown(hub_id)}; takes owner/name, which is no folder here")
    folder = find_local(str(entry))
    if folder is None:
        raise not_found(f"{entry}: no such entry")
    load_folder(folder)
    api = HfApi(library_name="qlip")
    with tempfile.TemporaryDirectory() as staging:
        for file in FILES:
            shutil.copyfile(_own(folder / file), Path(staging, file))
        without_paths(ZooConfig.read(folder / CONFIG)).write(Path(staging, CONFIG))
        text = (folder / CARD).read_text(encoding="utf-8")
        write_text(Path(staging, CARD), text.replace(f"qlip.load({folder.name!r})", f"qlip.load({hub_id!r})"))
        try:  # private: None, not False, which would override an organisation's own default of private
            url = api.create_repo(hub_id, private=private or None, exist_ok=True)
            api.upload_folder(repo_id=hub_id, folder_path=staging, commit_message=f"Upload {folder.name} with qlip")
        except (OSError, HTTPError) as error:
            raise ConnectionError(
                f"{hub_id}: not uploaded to {constants.ENDPOINT} ({_first_line(error)}); it needs a network and a token "
                f"that may write there, see `hf auth login`"
            ) from error
    return str(url)


def _find(source: str) -> Path | str:
    """The folder of the entry that ``source`` names, downloaded if need be, or ``solve:...``."""
    if source.startswith(SOLVE):
        return source
    if folder := find_local(source):
        return folder
    if source in REGISTRY:
        return _find_registered(REGISTRY[source])
    name, revision = split_revision(source)
    if is_hub_id(name):
        return _download(name, revision)
    what = f"{source}: neither an entry of the zoo, a folder with a {CONFIG}, nor a Hub id"
    raise not_found(what, kind=UnknownSourceError)


def _find_registered(entry: Entry) -> Path | str:
    if entry.kind == "solve":
        return entry.source + (f"@{entry.revision}" if entry.revision else "")
    folder = _download(entry.source, entry.revision)
    got = sha256(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else "no such file"
    if got != entry.sha256:
        raise EntryError(
            f"{entry.name}: {WEIGHTS} from {entry.source} has sha256 {got}, registered is {entry.sha256}; "
            f"it is not the file that was published, do not use it"
        )
    return folder


def _download(hub_id: str, revision: str | None) -> Path:
    """The snapshot of a Hub repository in the local cache, config, weights and card alone."""
    sought = f"{hub_id}@{revision}" if revision else hub_id
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(FILES), library_name="qlip"))
    except RepositoryNotFoundError as error:
        raise not_found(f"{sought}: no such repository on {constants.ENDPOINT}, or it is private") from error
    except RevisionNotFoundError as error:
        raise not_found(f"{sought}: the repository has no such revision") from error
    except (OSError, HTTPError) as error:
        why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} cannot be reached"
        raise not_found(f"{sought}: {why}, and it is not in the local cache") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
