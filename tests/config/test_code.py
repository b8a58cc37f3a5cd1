"""Which files a component is made of, in this package and in plug-ins, and what is said when they change."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.code import Code, changed, check_code, code_of, merged
from pipeline.config.learners import LEARNERS
from pipeline.config.mixers import MIXERS
from pipeline.config.networks import NETWORKS
from pipeline.config.tasks import TASKS
from pipeline.plan import _modules
from pipeline.storage.errors import ChangedCodeError

PACKAGE = Path(__file__).resolve().parents[2] / "pipeline"
NUMBERS = itertools.count()
PAGE = """
from typing import Literal
from pipeline.config.mixers import Mixer

class Leaky(Mixer):
    implementation = "NAME.leaky:Leaky"
    name: Literal["leaky"] = "leaky"
    horizon: int = 100

class Other(Mixer):
    implementation = "NAME.other:Other"
    name: Literal["other"] = "other"
"""
FILES = {
    "__init__.py": "",
    "page.py": PAGE,
    "leaky.py": "import torch\nfrom pipeline.mixers.base import Mixer\nfrom NAME.page import Leaky as Config\nfrom . import maths\n"
    "import NAME_helpers\nclass Leaky(Mixer):\n    source = 'scan.cu'\n    gate = torch.nn.functional.silu\n",
    "maths.py": "def gate(x): return x\n",
    "other.py": "x = 1\n",
    "unused.py": "x = 1\n",
    "scan.cu": "// kernel\n",
}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in as its author has it: a package on Python's path, and a module beside it."""
    name = f"plugin{next(NUMBERS)}"
    folder = tmp_path / name
    folder.mkdir()
    for file, text in FILES.items():
        (folder / file).write_text(text.replace("NAME", name))
    (tmp_path / f"{name}_helpers.py").write_text("y = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def code(folder: Path, name: str = "leaky") -> Code:
    """The present code of a mixer of the plug-in."""
    page: Any = importlib.import_module(f"{folder.name}.page")
    return code_of(getattr(page, name.capitalize())())


def test_a_plugin_is_what_it_imports_and_nothing_of_any_library(plugin: Path) -> None:
    name = plugin.name
    own = [f"{name}/leaky.py", f"{name}/maths.py", f"{name}/page.py", f"{name}/scan.cu", f"{name}_helpers.py"]
    assert list(code(plugin)) == ["mixer leaky"]
    assert list(code(plugin)["mixer leaky"]) == [
        "pipeline/mixers/base.py",
        *(f"pipeline/ops/{file}.py" for file in ("loop", "padding", "state")),
        *own,
    ]
    assert f"{name}.leaky" not in sys.modules, "nothing is imported for it"


CHANGES = {
    "its module": ("leaky.py", "silu", "tanh"),
    "a module it imports": ("maths.py", "return x", "return -x"),
    "a module beside the package": ("../NAME_helpers.py", "y = 1", "y = 2"),
    "a kernel": ("scan.cu", "kernel", "other kernel"),
    "a default": ("page.py", "100", "200"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_of_a_plugin_is_seen(plugin: Path, case: str) -> None:
    before = code(plugin)
    file, old, new = CHANGES[case]
    path = (plugin / file.replace("NAME", plugin.name)).resolve()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    name = path.relative_to(plugin.parent.resolve()).as_posix()
    assert changed(before, code(plugin)) == {"mixer leaky": [name]}


def test_what_is_no_part_of_it_changes_nothing(plugin: Path) -> None:
    before = code(plugin)
    (plugin / "unused.py").write_text("x = 2\n")
    (plugin / "other.py").write_text("x = 2\n")
    page = plugin / "page.py"
    page.write_text(
        page.read_text().replace('"other"', '"others"').replace("class Leaky(Mixer):\n", 'class Leaky(Mixer):\n    """Leaks."""\n')
    )
    (plugin / "maths.py").write_text("# a gate\n\ndef gate(x):\n    '''The gate.'''\n    return x\n")
    assert changed(before, code(plugin)) == {}
    assert changed(code(plugin, "other"), before) == {"mixer leaky": ["not recorded"]}


def test_an_installed_library_is_known_by_its_version_alone(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "site-packages" / f"{plugin.name}_library"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("z = 1\n")
    monkeypatch.syspath_prepend(library.parent)
    (plugin / "maths.py").write_text(f"import {library.name}\n")
    assert f"{library.name}/__init__.py" not in code(plugin)["mixer leaky"]


def test_the_files_of_a_plugged_in_figure_redraw_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugged_figure"
    package.mkdir()
    (package / "page.py").write_text(
        "from typing import Literal\nfrom pipeline.config.figures import Figure\nclass Pie(Figure):\n"
        "    implementation = 'plugged_figure.pie:draw'\n    name: Literal['pie'] = 'pie'\n"
    )
    (package / "pie.py").write_text("from plugged_figure import crust\nfrom pipeline.figures import style\n")
    (package / "crust.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    page: Any = importlib.import_module("plugged_figure.page")
    assert _modules(page.Pie()) == [str(package / name) for name in ("crust.py", "page.py", "pie.py")]


@pytest.mark.parametrize("kind", [MIXERS, NETWORKS, TASKS, LEARNERS], ids=["mixers", "networks", "tasks", "learners"])
def test_own_components_are_made_of_files_of_five_floors(kind: dict[str, Any]) -> None:
    for name, component in kind.items():
        given = {component.budgets[1]: 1} if kind is LEARNERS else {}
        found = code_of(component(name=name, **given))
        (own,) = [files for part, files in found.items() if part.endswith(f" {name}")]
        module = component.implementation.partition(":")[0]
        assert f"{module.replace('.', '/')}.py" in own
        assert {file.split("/")[1] for file in own} <= {"ops", "mixers", "networks", "tasks", "learners"}
        assert all((PACKAGE.parent / file).is_file() for file in own)


def test_every_c_source_belongs_to_a_mixer() -> None:
    found = {
        file for name, mixer in MIXERS.items() for files in code_of(mixer(name=name)).values() for file in files if not file.endswith(".py")
    }
    assert found == {f"pipeline/ops/{path.name}" for path in (PACKAGE / "ops").glob("*.[ch]")}


def test_a_network_brings_its_mixers_and_those_of_its_blocks() -> None:
    network = NETWORKS["sequence"](mixer={"name": "lru"}, attention={"at": ["last"]})  # pyright: ignore[reportCallIssue]
    assert list(code_of(network)) == ["mixer attention", "mixer lru", "network sequence"]


def test_other_code_is_one_line_or_allowed() -> None:
    before, now = {"mixer a": {"a.py": "1", "b.py": "1"}}, {"mixer a": {"a.py": "2", "c.py": "1"}, "task t": {"t.py": "1"}}
    line = r"x: trained by other code, changed since: mixer a \(a.py, b.py, c.py\), task t \(not recorded\)"
    with pytest.raises(ChangedCodeError, match=f"^{line}; run it, runtime.changed_code: allow"):
        check_code("x: trained", before, now, "run it", allow=False)
    assert re.fullmatch(line, check_code("x: trained", before, now, "run it", allow=True) or "")
    assert check_code("x: trained", now, now, "run it", allow=False) is None


def test_what_two_versions_made_is_never_taken_for_one_of_them() -> None:
    old, new = {"mixer a": {"a.py": "1"}, "task t": {"t.py": "1"}}, {"mixer a": {"a.py": "2"}, "task t": {"t.py": "1"}}
    both = merged(old, new)
    assert list(changed(both, new)) == list(changed(both, old)) == ["mixer a"]
