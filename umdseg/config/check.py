"""Check the composed configuration as a whole, before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from hydra.core.global_hydra import GlobalHydra

from umdseg.adapters.matrix import applicable
from umdseg.backbones.card import Card
from umdseg.backbones.listing import takes
from umdseg.backbones.windows import windowed
from umdseg.config.build import UNKNOWN, build
from umdseg.config.compose import composed, hydra_session, is_group, normalise, parse, search_problems
from umdseg.config.hardware import hardware_problems
from umdseg.config.places import place_problems
from umdseg.config.recipes import without_foreign
from umdseg.config.schema import COMPONENTS, FIXED, RunOptions, Settings, options_of
from umdseg.config.typed import complete_tables, fits_nothing, unread, with_tables, without_a_fusion
from umdseg.config.values import Problem, check_together, check_values
from umdseg.errors import UserError
from umdseg.registry import resolve


class ConfigError(UserError):
    """Everything wrong with a configuration, on one screen."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        # the same mistake in several jobs of a sweep is one mistake
        self.problems = list({(p.path, p.given): p for p in reversed(problems)}.values())[::-1]
        count = len(self.problems)
        super().__init__(
            f"the configuration has {'a mistake' if count == 1 else f'{count} mistakes'}; nothing was run"
        )
        self.args = ("\n".join([self.what, *map(Problem.shown, self.problems)]),)


@dataclass
class Checked:
    """Outcome of checking one configuration.

    Attributes:
        settings: typed configuration, None when there are problems.
        problems: what is wrong.
        lacking: among them, the options unknown to the chosen component (a sweep drops these).
        plain: the resolved configuration as nested plain Python.
        overrides: the overrides in the form Hydra composes.
        notices: what a recipe asks for and the chosen adapter has no use for, one line.
    """

    settings: Settings | None = None
    problems: list[Problem] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    plain: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def check(door: str, overrides: Sequence[str], search: Sequence[str] = ()) -> Settings:
    """Compose and check a configuration.

    Args:
        door: `train` or `evaluate`.
        overrides: the command line without flags.
        search: further folders of YAML files.

    Raises:
        ConfigError: naming every mistake at once.
    """
    refuse_missing(search)
    with hydra_session(search):
        outcome = examine(door, overrides, search)
    if outcome.settings is None or outcome.problems:
        raise ConfigError(outcome.problems)
    return outcome.settings


def refuse_missing(search: Sequence[str]) -> None:
    """Refuse folders given by `--config-dir` that are not there.

    Raises:
        ConfigError: naming them.
    """
    problems = search_problems(search)
    if problems:
        raise ConfigError(problems)


def examine(door: str, overrides: Sequence[str], search: Sequence[str] = ()) -> Checked:
    """Check one configuration without raising; must run inside `hydra_session(search)`."""
    loader = GlobalHydra.instance().config_loader()
    parsed, problems = parse(overrides, loader)
    outcome = Checked(problems=problems)
    explicit: set[str] = set()
    tables: dict[str, dict[str, Any]] = {}
    for override in parsed:
        if override.is_sweep_override():
            outcome.problems.append(
                Problem(
                    override.key_or_group,
                    f"'{override.input_line}'",
                    "one value; several values are a sweep: add -m",
                )
            )
            continue
        usable, wrong = normalise(override, loader)
        outcome.problems.extend(wrong)
        explicit.add(override.key_or_group + (".name" if is_group(override, loader) else ""))
        if usable is not None:
            outcome.overrides.append(usable)
        value = override.value()
        if isinstance(value, dict):
            tables[override.key_or_group] = dict(value)
        table, _, entry = override.key_or_group.rpartition(".")
        if table in tables:
            # typed behind the whole table, one entry of it
            tables[table][entry] = value
    outcome.plain, choices, found = composed(door, outcome.overrides)
    outcome.problems.extend(found)
    if not found:
        outcome.plain, outcome.notices = without_foreign(outcome.plain, choices, explicit)
        complete_tables(door, outcome.plain, outcome.overrides)
        _fill(outcome, tables)
    if outcome.settings is not None:
        outcome.problems.extend(_door(door, outcome.settings.run.task))
        foreign = without_a_fusion(outcome.settings, explicit)
        outcome.lacking += [problem.path for problem in foreign]
        outcome.problems += foreign
        if door == "evaluate":
            outcome.problems.extend(fits_nothing(outcome.settings))
            outcome.notices.extend(unread(outcome.settings, explicit))
        outcome.settings = replace(
            outcome.settings,
            explicit=frozenset(explicit),
            overrides=tuple(overrides),
            search=tuple(search),
            notices=tuple(outcome.notices),
        )
    return outcome


def _door(door: str, task: str) -> Iterator[Problem]:
    right = ("evaluate",) if door == "evaluate" else ("train", "pretrain")
    if task not in right:
        yield Problem("task", f"'{task}'", f"{' or '.join(right)}, which is what {door}.py does")


def _fill(outcome: Checked, tables: Mapping[str, dict[str, Any]]) -> None:
    sections = {**dict.fromkeys(COMPONENTS), **FIXED}
    top = {key: value for key, value in outcome.plain.items() if key not in sections}
    problems, flat = outcome.problems, dict[str, Any]()
    typed: dict[str, Any] = {"run": build(RunOptions, top, "", problems, flat, also=tuple(sections))}
    for section, fixed in sections.items():
        given = outcome.plain.get(section)
        given = {} if given is None else given
        cls = fixed or _component(section, given, outcome)
        if cls is not None:
            known = len(problems)
            given = outcome.plain[section] = with_tables(cls, section, given, tables)
            typed[section] = build(cls, given, section, problems, flat)
            if section in COMPONENTS:
                outcome.lacking += [p.path for p in problems[known:] if p.given == UNKNOWN]
    problems.extend(check_values(flat))
    if all(typed.get(name) is not None for name in ("run", *sections)):
        settings = _with_defaults(Settings(**typed))
        problems.extend(check_together(flatten(settings)))
        problems.extend(place_problems(flatten(settings)))
        if not any(problem.path.startswith("trainer") for problem in problems):
            problems.extend(hardware_problems(settings.trainer))
        problems.extend(_self_checks(settings, problems))
        outcome.settings = settings


def _with_defaults(settings: Settings) -> Settings:
    """Settings with what depends on other sections filled in, so that config.yaml names it."""
    fused = settings.fusion.name != "none"
    if fused and settings.run.task != "evaluate":
        settings = replace(settings, data=replace(settings.data, paired=True))
    if settings.fit.lr is not None:
        return settings
    # what an adapter trains is the larger part; without one the fusion is all there is
    kind = "fusion" if fused and settings.adapter.name == "none" else "adapter"
    trained = resolve(kind, getattr(settings, kind).name)
    return replace(settings, fit=replace(settings.fit, lr=trained.default_lr))


def _component(section: str, given: Any, outcome: Checked) -> type | None:
    name = given.get("name") if isinstance(given, Mapping) else None
    if not isinstance(name, str):
        outcome.problems.append(
            Problem(section, repr(given), f"a section with a name; choose one by {section}=NAME")
        )
        return None
    try:
        return options_of(section, name)
    except UserError as error:
        outcome.problems.append(Problem(f"{section}.name", error.what, error.expected or "", error.nearest))
        return None


def _self_checks(settings: Settings, known: Sequence[Problem]) -> list[Problem]:
    """What sections say about their own values."""
    found = []
    for test in _tests(settings):
        try:
            test()
        except UserError as error:
            path = str(error.where) if error.where else "configuration"
            if path not in {other.path for other in known}:
                found.append(Problem(path, error.what, error.expected or "", error.nearest))
    return found + _together(settings) + _fitting(settings)


def _fitting(settings: Settings) -> list[Problem]:
    """What a model's card says against adapter and fusion, where it is known before building."""
    card = _card(settings)
    if settings.run.task == "evaluate":
        return []
    found = _unfused(settings, card)
    if card is None:
        return found
    method = settings.adapter.name
    why = applicable(method, card, targets=getattr(settings.adapter, "targets", None))
    if why:
        given = f"'{method}' with model '{card.name}'"
        found.append(Problem("adapter", given, f"another (umdseg list adapters --matrix): {why}"))
    return found


def _unfused(settings: Settings, card: Card | None) -> list[Problem]:
    """What the model's card, or what is known without one, says against the fusion."""
    fusion, model = settings.fusion.name, settings.model.name
    listing = getattr(resolve("model", model), "listing", None)
    if fusion == "none" or listing is None:
        return []
    kind = resolve("fusion", fusion)
    why = kind.alone(listing()) if card is None else kind.unsuited(card)
    return [Problem("fusion", f"'{fusion}' with model '{model}'", f"another: {why}")] if why else []


def _card(settings: Settings) -> Card | None:
    """The model's card, where it is known before building."""
    told = getattr(resolve("model", settings.model.name), "listing", None)
    card: Card | None = None if told is None else told().card
    return card


def _together(settings: Settings) -> list[Problem]:
    """A model that takes several scans of one person is scored on all of them, and not trained."""
    together = takes(settings.model)
    if not together:
        return []
    names, missing = " and ".join(together), [m for m in together if m not in settings.data.modalities]
    fits = settings.run.task != "evaluate" and settings.fit.steps > 0 and settings.adapter.name != "none"
    said = f"'{settings.model.name}', which takes {names} of one person together"
    if fits:
        expected = "evaluate.py, or a model of one scan: adapters are trained on patches of single scans"
        return [Problem("model", said, expected)]
    if missing:
        given = f"{settings.data.modalities}, without {' and '.join(missing)}"
        expected = f"{names}, which model {settings.model.name} takes together"
        return [Problem("data.modalities", given, expected)]
    return []


def _tests(settings: Settings) -> Iterator[Callable[[], Any]]:
    for section in (*COMPONENTS, *FIXED):
        options = getattr(settings, section)
        test = getattr(options, "validate", None) or getattr(options, "check", None)
        if test is not None:
            yield test
    card = _card(settings)
    if card is not None and not card.scratch:
        # those trained from scratch have sizes of their own, which their options check
        yield lambda: windowed(card, settings.model.window)
    # a source without its files says what to give as the first thing it does; it reads nothing
    if any(getattr(settings.data, key, "") is None for key in ("manifest", "root")):
        source = resolve("data", settings.data.name)(settings.data)
        yield lambda: source.load(settings.run.seed)


def flatten(settings: Settings) -> dict[str, Any]:
    """Config path -> value, down to values that are no sections."""

    def walk(node: Any, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for spec in fields(node):
            value = getattr(node, spec.name)
            where = f"{path}.{spec.name}" if path else spec.name
            found.update(walk(value, where) if is_dataclass(value) else {where: value})
        return found

    flat = walk(settings.run, "")
    for section in (*COMPONENTS, *FIXED):
        flat.update(walk(getattr(settings, section), section))
    return flat
