"""What a saved fusion or adapter says about the settings it is scored with."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from umdseg.adapters import AdapterCard, AdapterOptions
from umdseg.config.schema import Settings
from umdseg.errors import UserError
from umdseg.fusion import FusionOptions
from umdseg.fusion.saved import FILE, FusionCard
from umdseg.registry import names, resolve
from umdseg.runs.identity import folder_hash
from umdseg.runs.job import say
from umdseg.runs.restored import registered_name, restored


def with_fusion(settings: Settings) -> Settings:
    """Settings with the fusion of a saved one: `fusion.path`, or what lies in the run `adapter.path` names.

    Model and options come from the fusion's card, the adapter is what was trained beside it (none, where the
    run has none). Of the options only `fusion.subsets` is the caller's, who chooses what is scored.

    Raises:
        UserError: no saved fusion there, or the command line asks for another model, fusion or adapter.
    """
    folder = _fusion_folder(settings)
    if folder is None:
        return settings
    card = FusionCard.read(folder)
    options = card.chosen(folder)
    name = _base_of(settings, card)
    _refuse_contradictions(settings, options)
    if "fusion.subsets" in settings.explicit:
        options = replace(options, subsets=settings.fusion.subsets)
    settings = _with_adapter_beside(settings, folder.parent)
    return replace(settings, fusion=options, model=restored(settings, name, card.preprocessing))


def _fusion_folder(settings: Settings) -> Path | None:
    """Where the saved fusion lies that settings name, None without one."""
    path = settings.fusion.path
    if path is None and settings.adapter.path:
        run = Path(settings.adapter.path).expanduser()
        if (run / "fusion").is_dir():
            path = str(run / "fusion")
        elif (run.parent / "fusion").is_dir():
            say(f"scored without the fusion trained beside it; adapter.path={run.parent} scores both")
    if path is None:
        return None
    folder = Path(path).expanduser()
    inner = folder / "fusion"
    return inner if not (folder / FILE).is_file() and (inner / FILE).is_file() else folder


def _base_of(settings: Settings, card: FusionCard) -> str:
    """The model that a fusion was made for.

    Raises:
        UserError: the command line names another one.
    """
    given, right = settings.model.name, registered_name(card.preprocessing, card.base_model)
    if card.base_model not in names("model") and "defaults" not in card.preprocessing:
        # older files do not say how a model of the user is registered; loading compares the cards
        return given
    if "model.name" in settings.explicit and given != right:
        raise UserError(
            f"the fusion was made with '{right}', not '{given}'",
            where="model.name",
            expected="nothing: with a saved fusion, the model comes from the fusion's card",
        )
    return right


def _refuse_contradictions(settings: Settings, options: FusionOptions) -> None:
    """Refuse options of the command line that are not those a fusion was saved with."""
    keys = (key for key in sorted(settings.explicit) if key.startswith("fusion."))
    # another kind first: it may have other options
    for key in sorted(keys, key=lambda key: key != "fusion.name"):
        option = key.removeprefix("fusion.")
        given, right = getattr(settings.fusion, option), getattr(options, option, None)
        if option not in ("path", "subsets") and given != right:
            raise UserError(
                f"the fusion was saved with {right}, not {given}",
                where=key,
                expected="nothing: only fusion.subsets may be chosen for a saved fusion",
            )


def _with_adapter_beside(settings: Settings, run: Path) -> Settings:
    """Settings with the adapter that a run trained beside its fusion; without any, where it has none.

    Raises:
        UserError: the command line asks for an adapter, but the run trained the fusion without one.
    """
    beside, path = run / "adapter", settings.adapter.path
    if path is None and beside.is_dir():
        # trained together, they mean something only together
        say(f"with the adapter trained beside it: {beside}")
        return replace(settings, adapter=replace(settings.adapter, path=str(beside)))
    if path is None or beside.is_dir() or Path(path).expanduser().resolve() != run.resolve():
        return settings
    none = resolve("adapter", "none").Options(name="none")
    keys = (key for key in sorted(settings.explicit - {"adapter.path"}) if key.startswith("adapter."))
    for key in keys:
        option = key.removeprefix("adapter.")
        if getattr(settings.adapter, option) != getattr(none, option, None):
            raise UserError(
                "the fusion was trained without an adapter", where=key, expected="adapter.path=RUN alone"
            )
    return replace(settings, adapter=none)


def refuse_strangers(fusion: Path, adapter: Path | None) -> None:
    """Refuse a fusion beside another adapter than it was trained with."""
    wanted, given = FusionCard.read(fusion).adapter, folder_hash(adapter) if adapter else None
    if wanted != given:
        made = "without an adapter" if wanted is None else "with another adapter"
        raise UserError(
            f"the fusion was trained {made}",
            where=fusion,
            expected="adapter.path=RUN, the run that trained both" if wanted else "fusion.path alone",
        )


def adapter_folder(path: str) -> Path:
    """The folder of a saved adapter, given itself or its run folder."""
    folder = Path(path).expanduser()
    inner = folder / "adapter"
    return inner if inner.is_dir() else folder


def with_card(settings: Settings, card: AdapterCard) -> Settings:
    """Settings with model, its options and method from an adapter's card.

    Raises:
        UserError: the command line asks for another model or method, or changes the adapter's options.
    """
    name = registered_name(card.preprocessing, card.base_model)
    wanted = {
        "model.name": (settings.model.name, name),
        "adapter.name": (settings.adapter.name, card.method),
    }
    for key, (given, right) in wanted.items():
        if key in settings.explicit and given != right:
            raise UserError(
                f"the adapter was made with '{right}', not '{given}'",
                where=key,
                expected="nothing: with adapter.path, model and method come from the adapter's card",
            )
    for key in settings.explicit:
        if key.startswith("adapter.") and key not in ("adapter.path", "adapter.name"):
            raise UserError(
                "an adapter's options are fixed once it is saved", where=key, expected="adapter.path alone"
            )
    return replace(
        settings,
        model=restored(settings, name, card.preprocessing),
        # config.yaml then says what is scored, rank and all
        adapter=_options(card, settings.adapter.path),
    )


def _options(card: AdapterCard, path: str | None) -> AdapterOptions:
    made: type[AdapterOptions] = resolve("adapter", card.method).Options
    known = {spec.name for spec in fields(made)}
    return made(
        **{"name": card.method, "path": path, **{k: v for k, v in card.options.items() if k in known}}
    )
