"""The verbs of the zoo, ``qlip zoo list``, ``show``, ``pull`` and ``push``: each is a function, its help is the docstring.

What needs torch is imported by the functions that use it, so that ``list`` starts at once.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli, set_parsing_settings
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qlip.files import sha256
from qlip.structured import check_configs
from qlip.zoo.config import EntryError, ZooConfig
from qlip.zoo.entries import CONFIG, WEIGHTS, find_local, local_entries, not_found
from qlip.zoo.registry import REGISTRY

_ORIGIN = {"solve": "solved", "hub": "Hub"}


def zoo_list(root: str = "checkpoints") -> None:
    """List the entries of the zoo and the registered names.

    Args:
        root: Folder of the zoo.
    """
    names = local_entries(root)
    local = _table("name", "backbone", "grid", "R", "offgrid", title=f"Entries in {root}/")
    for name in names:
        try:
            config = ZooConfig.read(Path(root, name, CONFIG))
        except EntryError:
            local.add_row(name, f"damaged: see `qlip zoo show {name}`")
            continue
        values = [_number(config.metrics.get(key)) for key in ("R", "offgrid")]
        local.add_row(escape(name), escape(config.backbone), f"{config.grid} x {config.grid}", *values)
    registered = _table("name", "from", "description", title="Registered names")
    for entry in REGISTRY.values():
        registered.add_row(entry.name, _ORIGIN[entry.kind], entry.description)
    nothing = f"No entries in {root}/ yet: `qlip fit` and `qlip zoo pull` make them.\n"
    Console().print(local if names else nothing, registered)


def zoo_show(name: str, root: str = "checkpoints") -> None:
    """Show an entry: its configuration, metrics and checksum.

    Args:
        name: An entry of the zoo, a folder, or a registered name.
        root: Folder of the zoo.
    """
    folder = find_local(name, root)
    if folder is not None:
        weights = folder / WEIGHTS
        fields: dict[str, Any] = {"folder": folder, **asdict(ZooConfig.read(folder / CONFIG))}
        checksum = f"{WEIGHTS}: {weights.stat().st_size / 1e6:.1f} MB, sha256\n{sha256(weights)}"
    elif name in REGISTRY:
        fields = asdict(REGISTRY[name])
        checksum = ""
    else:
        raise not_found(f"{name or repr(name)}: no entry of the zoo, folder or registered name", root)
    table = _table("field", "value", title=escape(name))
    for key, value in fields.items():
        if isinstance(value, dict):
            for inner, number in value.items():
                table.add_row(escape(f"{key}.{inner}"), escape(_number(number)))
        else:
            table.add_row(key, escape(_number(value)))
    Console().print(table, checksum, sep="")


def zoo_pull(source: str, name: str | None = None, root: str = "checkpoints") -> None:
    """Download or solve an entry, check it, and put it into the zoo.

    Args:
        source: A Hub id (owner/name or owner/name@revision), a registered name, or solve:<CLIP id or folder>.
        name: Name of the new entry; the last part of the source if not given.
        root: Folder of the zoo.
    """
    from qlip.zoo.load import pull

    folder = pull(source, name, root)
    Console().print(
        f"{escape(str(folder))}: complete and loadable. Use it with qlip.load({str(folder)!r})", soft_wrap=True
    )


def zoo_push(name: str, hub_id: str, private: bool = False) -> None:
    """Upload an entry to the Hugging Face Hub; log in first with `hf auth login`.

    Args:
        name: An entry in checkpoints/, or a folder.
        hub_id: Where to, owner/name; created if it is not there.
        private: Make a new repository private.
    """
    from qlip.zoo.load import push

    Console().print(push(name, hub_id, private), soft_wrap=True)


VERBS: dict[str, Any] = {
    "zoo": {
        "_help": "Trained and solved positions: list, show, pull, push",
        "list": zoo_list,
        "show": zoo_show,
        "pull": zoo_pull,
        "push": zoo_push,
    },
}


def run(args: list[str], prog: str) -> None:
    """Run one of the verbs.

    Args:
        args: ``zoo``, the verb and its options.
        prog: Name of the program in messages.

    Raises:
        OSError: if something is not there or cannot be had.
        ValueError: if an entry is damaged or an argument is not taken.
        argparse.ArgumentError: if an argument is unknown, missing or of the wrong type.
    """
    check_configs(args)
    set_parsing_settings(unset_sentinel=True)  # as in `qlip.options`
    auto_cli(VERBS, args=args, prog=prog, exit_on_error=False)


def _table(*columns: str, title: str) -> Table:
    table = Table(*columns, title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True  # names are there to be copied
    for column in table.columns:
        column.overflow = "fold"
    return table


def _number(value: Any) -> str:
    """Three digits of a fraction, and anything else as it is; nothing for None."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
