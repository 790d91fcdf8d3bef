"""A model's settings as a run reads them: plain values, without pydantic.

``config.yaml`` is what people write. To check it, a run would import pydantic, build its classes
and parse YAML, which takes .1 s: an eighth of a run of one sample with an index. So whoever writes
a model folder checks its settings once, and :func:`write_settings` puts them beside
``config.yaml``, with their defaults and the digest of that file. :func:`read_settings` takes them
from there, as long as the file is the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from ragimpute.config import RunConfig

#: The file in a model's folder.
FILE = "settings.json"
_VERSION = "1"


def write_settings(path: Path, config: RunConfig, text: bytes) -> None:
    """Write the settings of a model, which were checked.

    Parameters
    ----------
    path
        To write; the caller gives it its final name.
    config
        What ``text`` says, with all defaults.
    text
        The content of ``config.yaml``. It must not extend another file, which might change.
    """
    values = {
        "version": _VERSION,
        "config_sha256": hashlib.sha256(text).hexdigest(),
        "settings": config.model_dump(mode="json"),
    }
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_settings(folder: Path, config_name: str) -> RunConfig | None:
    """The checked settings of a model folder.

    Parameters
    ----------
    folder
        Of the model.
    config_name
        The file that people write.

    Returns
    -------
    An object with the attributes of a :class:`ragimpute.config.RunConfig`, and none of its methods;
    what is a tuple there is a list. None where there is no such file, where it cannot be read, or
    where ``config.yaml`` has changed since: then that must be read and checked.
    """
    try:
        values = json.loads((folder / FILE).read_bytes())
        digest = hashlib.sha256((folder / config_name).read_bytes()).hexdigest()
        if values["version"] == _VERSION and values["config_sha256"] == digest:
            return cast("RunConfig", _with_attributes(values["settings"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def _with_attributes(value: object) -> object:
    """What JSON holds, with the keys of objects as attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: _with_attributes(item) for key, item in value.items()})
    if isinstance(value, list):
        return [_with_attributes(item) for item in value]
    return value
