"""Reading YAML so that every value still knows the file and line it was written on.

YAML 1.2 (`1e-3` is a number, `off` a word), duplicate keys refused. A mapping becomes a YamlMapping, a list YamlList; both remember a Location
for each of their values, and merging blocks carries the locations along, so that an error in a merged value names the line that wrote it.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from pipeline.storage.errors import MissingFileError, UserError
from pipeline.storage.files import read_bytes

LARGEST_TEXT = 1_000_000
LARGEST_DOCUMENT = 30_000
"""Values of a config at most, whose parser takes 0.1 ms for each."""
DEEPEST_DOCUMENT = 50
LONGEST_LIST = 260
"""Characters of the known words that a message lists."""
WHOLE = {"name", "uniform", "log_uniform"}
"""A mapping with one of these keys, a component or a distribution, replaces what it is laid over."""
KINDS = {dict: "a mapping", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "a string"}


PRESETS = Path(__file__).resolve().parents[2] / "workflow" / "presets"
"""Folder of the presets."""


@dataclass(frozen=True)
class Location:
    """Where a value was written: file, line counted from 1, and its dotted path there."""

    file: str
    line: int
    path: str
    used_at: Location | None = None
    """Of a value in a preset: where the config names the preset."""

    def error(self, message: str) -> ConfigError:
        """The one line that names this location; in a preset, the line that names the preset first."""
        if self.used_at:
            inner = Location(Path(self.file).name, self.line, self.path).error(message)
            return ConfigError(str(self.used_at.error(str(inner))), self)
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ConfigError(f"{where}: {self.path}: {message}" if self.path else f"{where}: {message}", self)


class ConfigError(UserError):
    """A mistake in a config file: `file:line: path.of.key: what is wrong; what was expected`.

    clash: the value at `location` is wrong only together with another one.
    """

    def __init__(self, message: str, location: Location | None = None) -> None:
        super().__init__(message)
        self.location = location
        self.clash = False


class YamlMapping(dict[str, Any]):
    """A mapping whose values know their locations."""

    def __init__(self, location: Location) -> None:
        super().__init__()
        self.location = location
        self.locations: dict[str, Location] = {}

    def put(self, key: str, value: Any, location: Location) -> None:
        """Set a value together with its location."""
        self[key] = value
        self.locations[key] = location

    def copy(self) -> YamlMapping:
        """A copy in which inner blocks are copies too."""
        twin = YamlMapping(self.location)
        for key, value in self.items():
            twin.put(key, value.copy() if isinstance(value, YamlMapping) else value, self.locations[key])
        return twin

    def used_at(self, location: Location) -> YamlMapping:
        """A copy of a preset's block that knows where the config names it."""
        twin = YamlMapping(self.location)
        for key, value in self.items():
            here = self.locations[key]
            twin.put(key, _used_at(value, location), here if here.used_at else replace(here, used_at=location))
        return twin


class YamlList(list[Any]):
    """A list whose items know their locations."""

    def __init__(self, location: Location) -> None:
        super().__init__()
        self.location = location
        self.locations: list[Location] = []


def _used_at(value: Any, location: Location) -> Any:
    if isinstance(value, YamlMapping):
        return value.used_at(location)
    if isinstance(value, YamlList):
        twin = YamlList(value.location)
        twin.extend(_used_at(item, location) for item in value)
        twin.locations = [here if here.used_at else replace(here, used_at=location) for here in value.locations]
        return twin
    return value


@dataclass
class _Converter:
    file: str
    seen: int = field(default=0)

    def convert(self, node: Any, location: Location) -> Any:
        """The node as YamlMapping, YamlList or a plain Python value."""
        self.seen += 1
        if self.seen > LARGEST_DOCUMENT:
            raise location.error(f"more than {LARGEST_DOCUMENT} values (aliases counted where they are used); expected a smaller file")
        if location.path.count(".") + location.path.count("[") > DEEPEST_DOCUMENT:
            raise Location(self.file, location.line, "").error(f"nested more than {DEEPEST_DOCUMENT} levels deep; expected a few")
        if isinstance(node, CommentedMap):
            return self._block(node, location)
        if isinstance(node, CommentedSeq):
            return self._items(node, location)
        for kind in (bool, int, float, str):
            if isinstance(node, kind):
                return kind(node)
        if node is None:
            return None
        raise location.error(f"got {node!s:.40} ({type(node).__name__}); expected a number, a string (in quotes), a list or a mapping")

    def _block(self, node: CommentedMap, location: Location) -> YamlMapping:
        block = YamlMapping(location)
        for key, value in node.items():
            line = _line(node, key, location.line)
            if not isinstance(key, str):
                raise Location(self.file, line, location.path).error(f"got the key {shown(key)}; expected a string")
            here = Location(self.file, line, f"{location.path}.{key}" if location.path else key)
            block.put(key, self.convert(value, here), here)
        return block

    def _items(self, node: CommentedSeq, location: Location) -> YamlList:
        items = YamlList(location)
        for index, value in enumerate(node):
            here = Location(self.file, _line(node, index, location.line), f"{location.path}[{index}]")
            items.append(self.convert(value, here))
            items.locations.append(here)
        return items


def _line(node: CommentedMap | CommentedSeq, key: Any, default: int) -> int:
    position = (node.lc.data or {}).get(key)
    return position[0] + 1 if position else default


def read_document(path: Path) -> YamlMapping:
    """Read a YAML file whose top is a mapping. Raises ConfigError or MissingFileError, one line naming file and line."""
    name = str(path)
    try:
        text = read_bytes(path, LARGEST_TEXT).decode("utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError(f"{name}: no such file; expected a config such as config.yaml") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{name}: not text in UTF-8 (byte {error.start} is 0x{error.object[error.start]:02X}); expected a config in YAML"
        ) from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({(error.strerror or str(error)).lower()}); expected a config in YAML") from None
    return read_text(text, name)


def read_text(text: str, name: str) -> YamlMapping:
    """Read YAML text whose top is a mapping; `name` stands for the file in errors."""
    return _read_once(text, name).copy()


@functools.lru_cache(maxsize=64)
def _read_once(text: str, name: str) -> YamlMapping:
    """Read a text once however often a config names it: a preset takes 10 ms."""
    if len(text) > LARGEST_TEXT:
        raise ConfigError(f"{name}: {len(text):,} characters; expected at most {LARGEST_TEXT:,}")
    check_text(text, name)
    try:
        node = YAML(typ="rt", pure=True).load(text)
        document = _Converter(name).convert(node, Location(name, 1, ""))
    except MarkedYAMLError as error:
        raise _marked(name, error) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: not YAML: the character U+{ord(text[error.position]):04X} is not allowed") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested more than {DEEPEST_DOCUMENT} levels deep; expected a few") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(document, YamlMapping):
        raise ConfigError(f"{name}:1: got {kind_of(document)}; expected a mapping of keys to values")
    return document


LONGEST_NUMBER = 400
"""Digits of the longest number that is read."""


def check_text(text: str, name: str, most: int = LARGEST_DOCUMENT) -> None:
    """Refuse at once what the parser would take minutes over: `most` values at most, and not deeply nested."""
    values = len(re.findall(r",|:\s|\n *[^\s#]", text))
    if values > most:
        raise ConfigError(f"{name}: {values:,} values; expected at most {most:,}")
    if found := re.search(rf"(?<![\w.])[+-]?(?:0[xob])?[0-9a-fA-F_]{{{LONGEST_NUMBER + 1},}}(?![\w.])", text):
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(f"{name}:{line}: a number of {len(found[0]):,} digits; expected at most {LONGEST_NUMBER}")
    depth = 0
    for match in re.finditer(r"[\[{\]}]|(?:- ){50}", text):
        depth += 1 if match[0] in "[{" else -1 if match[0] in "]}" else DEEPEST_DOCUMENT
        if depth >= 4 * DEEPEST_DOCUMENT:
            line = text.count("\n", 0, match.start()) + 1
            raise ConfigError(f"{name}:{line}: nested more than {DEEPEST_DOCUMENT} levels deep; expected a few")


def _marked(name: str, error: MarkedYAMLError) -> ConfigError:
    """A parser's complaint in a user's words: what was opened and never closed is shown where it was opened."""
    problem, context = error.problem or "", error.context or ""
    mark = error.problem_mark or error.context_mark
    if isinstance(error, DuplicateKeyError):
        text = problem.split(" with value")[0].replace("found duplicate key", "duplicate key").replace('"', "'")
    elif context.startswith(("while parsing a flow", "while scanning a quoted")) and error.context_mark:
        mark, opened = error.context_mark, context.rsplit("a ", 1)[-1].replace("scalar", "text")
        text = f"not YAML: {problem or 'never closed'} in the {opened} that begins here"
    elif "'\\t'" in problem:
        text = "not YAML: a tab; expected spaces"
    elif problem == "mapping values are not allowed here":
        text = "not YAML: a second ': ' in one value; put the text in quotes"
    else:
        text = f"not YAML: {f'{context}, {problem}' if problem.startswith('but ') else problem or context}"
    return ConfigError(f"{name}{f':{mark.line + 1}' if mark else ''}: {' '.join(text.split())}")


def kind_of(value: Any) -> str:
    """What a value is, in a user's words."""
    return "nothing" if value is None else next((words for kind, words in KINDS.items() if isinstance(value, kind)), type(value).__name__)


def shown(value: Any) -> str:
    """A value as the user would write it, shortened; lists and mappings by their kind."""
    if value is None or isinstance(value, dict | list):
        return kind_of(value) if value or value is None else "an empty list" if isinstance(value, list) else "an empty mapping"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def merged(beneath: YamlMapping, above: YamlMapping) -> YamlMapping:
    """`above` laid over `beneath`. Inner mappings merge, unless the upper one is WHOLE: a component replaces a component."""
    result = beneath.copy()
    for key, value in above.items():
        overlay(result, key, value, above.locations[key])
    return result


def overlay(block: YamlMapping, key: str, value: Any, location: Location) -> None:
    """Lay one value over what stands at `key`; a mapping that is not WHOLE merges into the mapping there.

    The bare name of the component that stands there changes nothing: it keeps its fields.
    """
    present = block.get(key)
    if same_component(present, value):
        block.locations[key] = location
        return
    partial = isinstance(value, YamlMapping) and not WHOLE & value.keys()
    if isinstance(present, str) and partial:
        present = with_name(present, block.locations[key])
    if isinstance(present, YamlMapping) and partial:
        value = merged(present, value)
    block.put(key, value.copy() if isinstance(value, YamlMapping) else value, location)


def same_component(present: Any, value: Any) -> bool:
    """Whether `value` is no more than the name of the component `present`, which then keeps its fields."""
    bare = value if isinstance(value, str) else value["name"] if isinstance(value, YamlMapping) and set(value) == {"name"} else None
    return isinstance(present, YamlMapping) and isinstance(bare, str) and present.get("name") == bare


def dropped(present: Any, value: Any, path: str, replaced: bool = False) -> Iterator[tuple[str, Any]]:
    """The fields, by dotted path, that a component written at `path` loses when `value` is laid over it.

    replaced: an outer component is written anew, so that nothing inside it is kept.
    """
    if not isinstance(present, YamlMapping) or (same_component(present, value) and not replaced):
        return
    replaced = replaced or not isinstance(value, YamlMapping) or bool(WHOLE & value.keys())
    written = value if isinstance(value, YamlMapping) else {}
    for key, item in present.items():
        if key in written:
            yield from dropped(item, written[key], f"{path}.{key}", replaced)
        elif replaced and key != "name" and "name" in present:
            yield f"{path}.{key}", plain(item)


def value_at(block: Any, dotted: str) -> Any:
    """What stands at a dotted path of a block; None where nothing does."""
    for key in dotted.split("."):
        block = block.get(key) if isinstance(block, YamlMapping) else None
    return block


def put_dotted(block: YamlMapping, dotted: str, value: Any, location: Location) -> None:
    """Lay a value over what stands at a dotted path; a component written as a bare name becomes a mapping on the way."""
    *parents, last = dotted.split(".")
    if len(parents) > DEEPEST_DOCUMENT:
        raise location.error(f"{len(parents) + 1} keys deep; expected at most {DEEPEST_DOCUMENT}")
    for key in parents:
        inner = block.get(key)
        if isinstance(inner, str):
            inner = with_name(inner, block.locations[key])
            block.locations[key] = location
        elif inner is None:
            inner = YamlMapping(location)
        elif not isinstance(inner, YamlMapping):
            raise block.locations[key].error(f"got {shown(inner)}; expected a mapping, since '{dotted}' is set in it")
        block.put(key, inner, block.locations.get(key, location))
        block = inner
    overlay(block, last, value, location)


def with_name(name: str, location: Location) -> YamlMapping:
    """A bare component name as the mapping it stands for."""
    block = YamlMapping(location)
    block.put("name", name, location)
    return block


def check_values(values: Any, location: Location, expected: str) -> None:
    """Raise ConfigError unless `values` is a list of different values, at least one."""
    if not isinstance(values, YamlList) or not values:
        raise location.error(f"got {shown(values)}; expected {expected}")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise values.locations[index].error(f"{shown(value)} is listed twice; expected different values")


def combinations(lists: YamlMapping, location: Location) -> Iterator[YamlMapping]:
    """Every choice of one value from each list, each value with its own location; `location` is that of the choices."""
    for choice in itertools.product(*(range(len(values)) for values in lists.values())):
        chosen = YamlMapping(location)
        for (key, values), index in zip(lists.items(), choice, strict=True):
            chosen.put(key, values[index], values.locations[index])
        yield chosen


def plain(value: Any) -> Any:
    """A block or list without locations: ordinary dictionaries and lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known word is close, otherwise what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if close:
        nearest = max(close, key=lambda name: (difflib.SequenceMatcher(None, name, word).ratio(), -abs(len(name) - len(word))))
        return f"; did you mean '{nearest}'?"
    return f"; expected {'one of ' if len(known) > 1 else ''}{_listed(known)}" if known else ""


def _listed(words: list[str]) -> str:
    """The words, as many as fit into three lines of a terminal with what else a message says."""
    text = ", ".join(words)
    if len(text) <= LONGEST_LIST:
        return text
    shown = text[:LONGEST_LIST].split(", ")[:-1]
    return f"{', '.join(shown)} and {len(words) - len(shown)} more"
