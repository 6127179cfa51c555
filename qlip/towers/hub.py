"""The configuration of a model from a folder or the Hub: nothing that lies beside it is run, and what is wrong is named."""

import os
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import get_session, validate_repo_id
from transformers import AutoConfig, PretrainedConfig

from qlip.core.rules import shown

TIMEOUT = 10  # seconds in which the Hub must answer
NO_CODE = {"trust_remote_code": False}  # else transformers asks whether to run what lies beside a model


def check_source(source: str, what: str, **hub: Any) -> None:
    """Check that a model is a folder here, in the Hub's cache, or on a Hub that answers.

    Asked before transformers, which tries for a minute where there is no network.

    Args:
        source: Hub id or folder.
        what: Name of the argument that it comes from, for errors.
        hub: Options of transformers about the Hub; ``revision`` and ``cache_dir`` say what to look for in which cache.

    Raises:
        OSError: if it is none of these.
    """
    if os.path.isdir(source):
        return
    if os.path.exists(source):
        raise OSError(f"{what}: got {shown(source)}, which is a file; takes the folder of a model, or a Hub id")
    lacking = f"{what}: {shown(source)} is no folder of a model here and could not be downloaded"
    try:
        validate_repo_id(source)
    except HFValidationError as error:
        raise OSError(f"{lacking}: it is no Hub id either, which is written owner/name") from error
    name = f"{hub['subfolder']}/{constants.CONFIG_NAME}" if hub.get("subfolder") else constants.CONFIG_NAME
    if isinstance(try_to_load_from_cache(source, name, hub.get("cache_dir"), hub.get("revision")), str):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except (OSError, HTTPError) as error:
        raise OSError(f"{lacking}: {constants.ENDPOINT} cannot be reached") from error


def read_config(source: str, what: str, **hub: Any) -> PretrainedConfig:
    """The configuration of a model.

    Args:
        source: Hub id or folder.
        what: Name of the argument that it comes from, for errors.
        hub: Options of transformers about the Hub, such as ``revision``.

    Raises:
        OSError: if it cannot be had.
        ValueError: if it is damaged, or of a kind that transformers does not know.
    """
    check_source(source, what, **hub)
    try:
        return AutoConfig.from_pretrained(source, **hub, **NO_CODE)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"{what}: {source!r} is no folder of a model here and could not be downloaded: {reason}"
        ) from error
    except Exception as error:  # of every kind, for a file that anybody may have written
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{what}: {source!r} has a config.json that cannot be read: {reason}") from error
