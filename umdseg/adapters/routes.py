"""Which of several adapters a scan goes through: by modality, tracer or site."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from torch import nn

from umdseg.errors import UserError
from umdseg.vocabulary import Origin

Per = Literal["modality", "tracer", "site"]
# names of modules, and folders beside each other: nothing else may stand in them
_ODD = re.compile(r"[^\w-]+")


def route_of(origin: Origin, per: Per) -> str:
    """The route of a scan, "" where what decides is not known.

    Spelling and case are evened out ("18F-FDG " is `18f-fdg`), for a route names a module and a folder.
    Per tracer, a scan that states no tracer or sequence (CT never does) goes by its modality.
    """
    if per == "site":
        return _key(origin.site)
    if per == "tracer":
        return _key(origin.tracer) or _key(origin.modality or "")
    return _key(origin.modality or "")


def routes_of(origins: Iterable[Origin], per: Per) -> list[str]:
    """The routes of training scans, in the order of first appearance.

    Raises:
        UserError: a scan does not state what decides, or two names cannot be told apart.
    """
    found: dict[str, str] = {}
    for origin in origins:
        name, route = getattr(origin, per) or origin.modality or "", route_of(origin, per)
        if not route:
            raise UserError(
                f"a {origin.modality} scan to train on states no {per}",
                where="adapter.per",
                expected=f"adapter.per=null, or a {per} for every training scan ",
            )
        other = found.setdefault(route, name)
        if other.strip().lower() != name.strip().lower():
            raise UserError(
                f"the {per}s '{other}' and '{name}' cannot be told apart",
                where="adapter.per",
                expected="names that differ in letters or digits",
            )
    return list(found)


def _key(name: str) -> str:
    key = _ODD.sub("_", name.strip().lower())
    # saved adapters call their routes so: peft's names once were the routes, and a module cannot be called
    # what dictionaries of modules already have, nor one of several adapters `default`
    return f"{key}_" if key == "default" or hasattr(nn.ModuleDict(), key) else key
