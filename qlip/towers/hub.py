"""Whether a model can be had at all: asked before transformers, which tries for a minute where there is no network."""

import os

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import get_session, validate_repo_id

from qlip.core.rules import shown

TIMEOUT = 10  # seconds in which the Hub must answer


def check_source(source: str, what: str) -> None:
    """Check that a model is a folder here, in the Hub's cache, or on a Hub that answers.

    Args:
        source: Hub id or folder.
        what: Name of the argument that it comes from, for errors.

    Raises:
        OSError: if it is none of these.
    """
    if os.path.isdir(source):
        return
    if os.path.exists(source):
        raise OSError(f"{what}: got {source!r}, which is a file; takes the folder of a model, or a Hub id")
    lacking = f"{what}: {shown(source)} is no folder of a model here and could not be downloaded"
    try:
        validate_repo_id(source)
    except HFValidationError as error:
        raise OSError(f"{lacking}: it is no Hub id either, which is written owner/name") from error
    if isinstance(try_to_load_from_cache(source, constants.CONFIG_NAME), str):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except (OSError, HTTPError) as error:
        raise OSError(f"{lacking}: {constants.ENDPOINT} cannot be reached") from error
