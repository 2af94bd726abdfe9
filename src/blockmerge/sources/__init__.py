"""Where weights come from. Above this floor nobody can tell a folder from the Hub.

:class:`Source` is the contract; :func:`open_model` gives one for a path or a Hub id.
"""

from __future__ import annotations

from blockmerge.sources.adapter import ADAPTER_WEIGHTS, AdapterSource
from blockmerge.sources.base import Fingerprint, Source
from blockmerge.sources.card import read_card
from blockmerge.sources.local import LocalSource
from blockmerge.sources.locate import is_hub_id, locate, open_model, parts_of
from blockmerge.sources.location import ModelLocation
from blockmerge.sources.memory import MemorySource
from blockmerge.sources.respelled import RespelledSource
from blockmerge.sources.small import SmallFile

__all__ = [
    "ADAPTER_WEIGHTS",
    "AdapterSource",
    "Fingerprint",
    "LocalSource",
    "MemorySource",
    "ModelLocation",
    "RespelledSource",
    "SmallFile",
    "Source",
    "is_hub_id",
    "locate",
    "open_model",
    "parts_of",
    "read_card",
]
