"""The shell around every command: settings from defaults, preset, TOML file and flags; errors in one line.

tyro splits the words and writes the help; pydantic alone judges the values, so a TOML file and a flag are refused
with the same sentence. Nothing heavy is imported here: ``--help`` has to answer at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar, get_args, get_origin

import tyro
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from boltzgen_diffclf.errors import BoltzgenError, InputError, nearest_name
from workflows.settings_file import read_settings, settings_as_toml


class Settings(Protocol):
    """The settings of a command."""

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        ...


Config = TypeVar("Config", bound=Settings)
Presets = Mapping[str, Mapping[str, object]]

INTERRUPTED = 130
"""Exit code of a command stopped by Ctrl-C or SIGTERM, as shells count it."""

SYNONYMS: Mapping[str, Sequence[str]] = dict.fromkeys(("loss", "losses"), ("objectives", "objective"))
"""What others call a setting, and our names of it: of those the first that a command has is meant."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Invocation(Generic[Config]):
    """What the words of one command line ask for."""

    settings: Config
    print_config: bool
    debug: bool


def run_command(
    config_type: type[Config],
    run: Callable[[Config], object],
    *,
    program: str,
    presets: Presets | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Read the command line, call ``run(settings)`` and return the exit code.

    Args:
        config_type: a frozen pydantic dataclass that refuses extra keys; each field has a description.
        run: the Python API of the command.
        program: name shown in the help.
        presets: preset name to the settings that it sets, shown as defaults in the help.
        argv: words after the program name; those of the process where None.

    Returns:
        0 done, 2 bad input, 3 result not trustworthy, 4 run failed, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        with _reader_may_leave():
            invocation = read_command_line(config_type, words, program=program, presets=presets or {})
            if invocation.print_config:
                sys.stdout.write(settings_as_toml(invocation.settings))
                return 0
        from workflows.progress import logging_to_stderr, terminating_politely

        with logging_to_stderr(debug=debug), terminating_politely():
            if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, one speaks
                _log.info("the run is kept in %s; loading what it needs", invocation.settings.folder)
            run(invocation.settings)
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the edge of the process: a bug too is one line
        if debug:
            traceback.print_exc()
        message, exit_code = describe_failure(error)
        print("error: " + " ".join(message.split()), file=sys.stderr)
        return exit_code
    return 0


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End quietly where what reads our words (``| head``) has seen enough."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at the end, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def read_command_line(
    config_type: type[Config], words: Sequence[str], *, program: str, presets: Presets
) -> Invocation[Config]:
    """Return the settings that ``words`` ask for: defaults < preset < ``--config`` file < flags.

    Raises:
        InputError: an unknown option or key, or a value that is refused; the line names the nearest valid name.
        SystemExit: with code 0 after ``--help``.
    """
    given = _given_options(config_type, words, program, presets)
    print_config, debug = bool(given.pop("print_config")), bool(given.pop("debug"))
    file = given.pop("config", None)
    from_file = read_settings(Path(str(file))) if file is not None else {}
    sources = {**dict.fromkeys(from_file, f"{file}: "), **dict.fromkeys(given, "")}
    return Invocation(_validated(config_type, {**from_file, **given}, sources), print_config, debug)


def describe_failure(error: BaseException) -> tuple[str, int]:
    """Return what to say about the end of a command, and its exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; repeat the command to resume", INTERRUPTED
    if isinstance(error, BoltzgenError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return describe_os_error(error), 4
    if isinstance(error, MemoryError):
        return "out of memory; choose a smaller preset or fewer --walkers, then repeat", 4
    kind = f"unexpected {type(error).__name__}: {error}"
    return f"{kind}; this is a bug: repeat with --debug and report the traceback", 4


def describe_os_error(error: OSError) -> str:
    """Return one line for an error of the operating system, with what to do next."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}; free space or choose another --out, then repeat the command: it resumes"
    return f"the system refused: {error.strerror or error}{where}; mend that, then repeat the command: it resumes"


def _fields(config_type: type) -> dict[str, FieldInfo]:
    return dict(config_type.__pydantic_fields__)  # type: ignore[attr-defined]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _given_options(config_type: type, words: Sequence[str], program: str, presets: Presets) -> dict[str, object]:
    """Return only the options present in ``words``, as the strings typed."""
    options = _option_table(config_type, presets)
    asks_help = any(word in ("-h", "--help") for word in words)
    if not asks_help:
        _refuse_missing_values(options, words)
    try:
        parsed, unknown = tyro.cli(
            options,
            prog=program,
            description=inspect.cleandoc(config_type.__doc__ or ""),
            args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
            return_unknown_args=True,
            console_outputs=asks_help,
        )
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise InputError(f"could not read '{' '.join(words)}' (--help shows what each option takes)") from stop
    if unknown:
        raise InputError(_unknown_word(options, unknown[0]))
    values = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(options)}
    for name, value in values.items():
        if value == "":  # an unset shell variable; as a path it would mean the current folder
            raise InputError(f"option '{_flag(name)}' is empty: give it a value, or leave it out")
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _option_table(config_type: type, presets: Presets) -> Any:
    """Return a dataclass of plain strings for tyro: None or () marks an option that was not given."""
    rows: list[tuple[str, Any, Any]] = []
    for name, field in _fields(config_type).items():
        several = get_origin(field.annotation) is tuple
        about = tyro.conf.arg(
            metavar=_metavar(field.annotation),
            help=field.description or "",
            help_behavior_hint=_default_hint(name, field, presets),
        )
        plain: Any = tuple[str, ...] if several else str | None
        default: Any = () if several else None
        rows.append((name, Annotated[plain, about], dataclasses.field(default=default)))
    rows += [
        ("config", _described(str | None, "TOML file of settings; flags override it.", "FILE.toml"), None),
        ("print_config", _described(bool, "Print the effective settings as TOML and stop."), False),
        ("debug", _described(bool, "Show the traceback of an error."), False),
    ]
    return dataclasses.make_dataclass("Options", rows, frozen=True)


def _described(kind: Any, text: str, metavar: str | None = None) -> Any:
    return Annotated[kind, tyro.conf.arg(help=text, metavar=metavar, help_behavior_hint="")]


def _metavar(annotation: Any) -> str:
    """Return how a value is written: ``FLOAT``, ``{quick,paper}``, ``INT [INT ...]``.

    >>> _metavar(tuple[float, ...]), _metavar(int | None), _metavar(Literal["a", "b"])
    ('FLOAT [FLOAT ...]', 'INT', '{a,b}')
    """
    inner = [part for part in get_args(annotation) if part not in (type(None), Ellipsis)]
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, get_args(annotation))) + "}"
    if get_origin(annotation) is tuple:
        return f"{_metavar(inner[0])} [{_metavar(inner[0])} ...]"
    if inner:
        return _metavar(inner[0])
    return {bool: "{true,false}", Path: "PATH"}.get(annotation, annotation.__name__.upper())


def _default_hint(name: str, field: FieldInfo, presets: Presets) -> str:
    by_preset = {preset: values[name] for preset, values in presets.items() if name in values}
    if by_preset:
        return "(" + ", ".join(f"{preset}: {_shown(value)}" for preset, value in by_preset.items()) + ")"
    if field.is_required():
        return "(required)"
    default = field.get_default(call_default_factory=False)
    return f"(default: {_shown(default)})" if default is not None and default != () else ""


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _option_flags(options: Any) -> list[str]:
    return [_flag(field.name) for field in dataclasses.fields(options)]


def _unknown_word(options: Any, word: str) -> str:
    name = word.split("=")[0].replace("_", "-")
    if not word.startswith("-"):
        return f"unexpected word '{word}': every option has a name (--help lists them)"
    return f"unknown option '{name}'{_meant(name, _option_flags(options))} (--help lists all options)"


def _meant(name: str, valid: list[str]) -> str:
    """Return ``; did you mean 'x'?`` for the setting that others call by this name, or the one of the closest name.

    >>> _meant("--loss", ["--steps", "--objectives"]), _meant("losses", ["steps", "objective"])
    ("; did you mean '--objectives'?", "; did you mean 'objective'?")
    """
    word = name.removeprefix("--")
    ours = [name.replace(word, one) for one in SYNONYMS.get(word, ())]
    return nearest_name(next((one for one in ours if one in valid), name), valid)


def _refuse_missing_values(options: Any, words: Sequence[str]) -> None:
    """Refuse an option with nothing after it, which tyro would take for an empty list."""
    switches = {_flag(field.name) for field in dataclasses.fields(options) if field.default is False}
    for word, follower in zip(words, [*words[1:], "--"], strict=False):
        name = word.replace("_", "-")
        if name in _option_flags(options) and name not in switches and follower.startswith("--"):
            raise InputError(f"option '{word}' lacks its value (--help shows what it takes)")


def _validated(config_type: type[Config], values: Mapping[str, object], sources: Mapping[str, str]) -> Config:
    for name, field in _fields(config_type).items():
        if field.is_required() and name not in values:
            raise InputError(f"option '{_flag(name)}' is missing. {field.description}")
    try:
        return config_type(**values)
    except ValidationError as error:
        raise InputError(explain(error, list(_fields(config_type)), sources)) from error


def explain(error: ValidationError, valid: list[str], sources: Mapping[str, str]) -> str:
    """Return the first refused setting in one line: where it was set, its value, why, the nearest valid name."""
    details = error.errors(include_url=False)
    first = details[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    source = sources.get(name, "")
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{source}unknown setting '{name}'{_meant(name, valid)} (--print-config lists all settings)"
    reason = first["msg"].removeprefix("Value error, ")
    choices = [word.strip("'") for word in str(first.get("ctx", {}).get("expected", "")).split() if "'" in word]
    near = nearest_name(str(first["input"]), [choice.strip(",").strip("'") for choice in choices])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    if not name:
        return f"{reason}{more}"
    label = f"{name} =" if source else _flag(name)
    return f"{source}{label} {_shown(first['input'])}: {reason[0].lower() + reason[1:]}{near}{more}"
