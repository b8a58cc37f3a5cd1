"""The package's layers, forbidden imports and calls, and the length of files and functions."""

from __future__ import annotations

import ast
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.config.mixers import MIXERS

REPOSITORY = Path(__file__).resolve().parents[1]
FLOORS = [
    ("storage", "environment_variables"),
    ("config", "slurm", "apptainer", "snakemake_patches", "snakemake_state", "results_lock", "frozen_plan"),
    ("planned", "tasks", "ops", "job_settings"),
    ("plan",),
    ("suites", "mixers"),
    ("workspace",),
    ("networks",),
    ("learners",),
    ("training",),
    ("evaluation",),
    ("figures",),
    ("in_process", "doctor", "retrain"),
    ("cli",),
]
"""Bottom up. A part imports from floors below its own; parts of one floor know nothing of each other."""
FLOOR = {part: number for number, floor in enumerate(FLOORS) for part in floor}
APART = {"ops": {"tasks"}, "mixers": {"tasks"}, "networks": {"tasks", "plan"}, "learners": {"tasks", "plan"}, "training": {"tasks", "plan"}}
"""What lies between the rows of data and the loss never knows which task they came from."""
WORKFLOW = (
    "apptainer", "environment_variables", "frozen_plan", "job_settings", "plan", "planned", "results_lock", "slurm", "snakemake_patches",
    "snakemake_state", "suites", "workspace",
)  # fmt: skip
"""What the Snakefile imports beside config and storage."""
TORCHLESS = ("storage", "config", "tasks", "figures", *WORKFLOW)
"""Parts that never import torch, not even inside a function."""
LATE = ("cli", "doctor", "in_process", "retrain", "__init__", "__main__")
"""Parts that import heavy packages inside functions only."""
EARLY = ("storage", "config", "cli", *WORKFLOW)
"""Parts of ours that those import at once."""
HEAVY = ("torch", "pandas", "matplotlib", "wandb", "scipy")
FORBIDDEN_MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml")
FORBIDDEN_CALLS = ("eval", "exec", "compile", "__import__", "torch.load", "torch.save", "numpy.load", "np.load", "os.system", "os.popen")
TEXT = (".py", ".smk", ".yaml", ".yml", ".toml", ".md", ".rst", ".json", ".c", ".txt", ".sh", ".def", "")
SKIPPED = {
    ".git",
    ".venv",
    ".snakemake",
    ".hypothesis",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "results",
    "site",
    "recurlab.egg-info",
}
LONGEST_FILE = 400
LONGEST_PAGE = 650
"""Lines of a page of the config: it has every option of its kind, each with when to change it."""
LONGEST_FUNCTION = 60

MODULES = sorted((REPOSITORY / "pipeline").rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def part_of(path: Path) -> str:
    """The part of the house a module belongs to: its package, or its own name."""
    inner = path.relative_to(REPOSITORY / "pipeline")
    return inner.parts[0].removesuffix(".py")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(node: ast.AST, late: bool = True) -> Iterator[str]:
    """Every module imported, with the names taken from it; `late`: those inside functions too. Imports for type checkers are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "absolute imports only"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from (name for other in child.orelse for name in imports(other, late))
        elif late or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(child, late)


def parts_imported(path: Path) -> set[str]:
    """The parts of the house that a module imports."""
    return {name.split(".")[1] for name in imports(tree_of(path)) if name.startswith("pipeline.")} - {part_of(path)}


def test_imports_go_downward() -> None:
    wrong = []
    for path in MODULES:
        part, found = part_of(path), parts_imported(path)
        if part in ("__init__", "__main__"):
            continue
        assert part in FLOOR, f"{part} has no floor yet"
        upward = {other for other in found if FLOOR[other] >= FLOOR[part]} | found & APART.get(part, set())
        wrong += [f"{name_of(path)} imports {other}" for other in sorted(upward)]
    assert wrong == []


def test_every_file_of_mixers_is_an_architecture_of_the_catalogue() -> None:
    implementations = {entry.implementation.partition(":")[0] for entry in MIXERS.values()}
    modules = {f"pipeline.mixers.{path.stem}" for path in (REPOSITORY / "pipeline" / "mixers").iterdir() if path.is_file()}
    assert modules - implementations == {"pipeline.mixers.__init__", "pipeline.mixers.base"}


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    wrong = []
    for path in MODULES:
        tree, part = tree_of(path), part_of(path)
        early, all_imports = set(imports(tree, late=False)), set(imports(tree))
        banned = {name for name in all_imports if part in TORCHLESS and name.split(".")[0] == "torch"}
        banned |= {name for name in early if part in (*TORCHLESS, *LATE) and part != "figures" and name.split(".")[0] in HEAVY}
        ours = {name for name in early if name.startswith("pipeline.") and name.split(".")[1] not in EARLY}
        banned |= ours if part in LATE else set()
        wrong += [f"{name_of(path)} imports {name}" for name in sorted(banned)]
    assert wrong == []


def test_the_workflow_imports_little_of_ours() -> None:
    allowed = {"pipeline.plan", "pipeline.config", "pipeline.workspace"}
    for path in (REPOSITORY / "Snakefile", *sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))):
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"^\s*(?:from|import) (pipeline[\w.]*)", text, re.MULTILINE)
        assert {".".join(name.split(".")[:2]) for name in found} <= allowed, path.name
        assert not re.search(r"^\s*run:", text, re.MULTILINE), f"{path.name}: rules call the command line"


def complaints(call: ast.Call) -> Iterator[str]:
    """What is wrong with one call."""
    called = ast.unparse(call.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if called in FORBIDDEN_CALLS:
        yield called
    if called == "YAML" and (options.get("pure") != "True" or options.get("typ") not in ("'rt'", "'safe'")):
        yield "YAML other than safe or round-trip, in pure Python"
    yield from (f"{option}=True" for option in ("shell", "allow_pickle", "trust_remote_code") if options.get(option) == "True")


def test_no_code_is_executed_from_files() -> None:
    wrong = []
    for path in [*MODULES, *sorted((REPOSITORY / "benchmarks").rglob("*.py"))]:
        tree = tree_of(path)
        wrong += [f"{name_of(path)}: {name}" for name in imports(tree) if name.split(".")[0] in FORBIDDEN_MODULES]
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        wrong += [f"{name_of(path)}:{call.lineno}: {problem}" for call in calls for problem in complaints(call)]
    assert wrong == []


def test_the_scan_finds_forbidden_code() -> None:
    lines = ["import pickle", "if TYPE_CHECKING:", "    import torch", "def f():", "    import numpy", "    eval('1')"]
    code = "\n".join([*lines, "torch.load(x)", "YAML()", "run(x, shell=True)", "net.eval()"])
    tree = ast.parse(code)
    assert sorted(imports(tree)) == ["numpy", "pickle"]
    assert list(imports(tree, late=False)) == ["pickle"]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert len([problem for call in calls for problem in complaints(call)]) == 4


def test_files_and_functions_are_short() -> None:
    most = {path: LONGEST_PAGE if "pipeline/config/" in path.as_posix() else LONGEST_FILE for path in MODULES}
    long = [name_of(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > most[path]]
    for path in MODULES:
        sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(tree_of(path))}
        long += [f"{name_of(path)}: {name} has {size} lines" for name, size in sizes.items() if size > LONGEST_FUNCTION]
    assert long == []


def public(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions, classes and methods; what is inside a function is nobody else's."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            if not any(ast.unparse(decorator).endswith(".setter") for decorator in child.decorator_list):
                yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def unannotated(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The arguments of a function, and its answer, that have no type."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    given = [argument for argument in arguments if argument is not None and argument.arg not in ("self", "cls")]
    yield from (f"{node.name}({argument.arg})" for argument in given if argument.annotation is None)
    if node.returns is None:
        yield f"{node.name} -> ?"


def test_public_code_is_documented_and_functions_are_annotated() -> None:
    wrong = []
    for path in MODULES:
        tree, name = tree_of(path), name_of(path)
        wrong += [] if ast.get_docstring(tree) or not tree.body else [f"{name}: no docstring"]
        wrong += [f"{name}: {node.name} has no docstring" for node in public(tree) if not ast.get_docstring(node)]
        wrong += [f"{name}: {missing}" for node in functions(tree) for missing in unannotated(node)]
    assert wrong == []


def texts() -> Iterator[Path]:
    """Every text file of the repository."""
    for folder, folders, files in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if name not in SKIPPED]
        yield from (Path(folder, name) for name in files if Path(name).suffix in TEXT)


def test_no_file_contains_a_machines_path() -> None:
    machine = re.compile("|".join(rf"(?<![\w.~-])/{name}/\w" for name in ("work", "home", "root", "Users", "mnt", "scratch")))
    found = [
        f"{path.relative_to(REPOSITORY)}: {match[0]}"
        for path in texts()
        for match in machine.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found


def test_there_are_no_todos() -> None:
    words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")
    found = [f"{name_of(path)}: {match[0]}" for path in MODULES for match in words.finditer(path.read_text(encoding="utf-8"))]
    assert not found


def test_replaced_words_do_not_come_back() -> None:
    """Words that the field has better ones for and that have no legitimate use here; the log and the changelog may quote them."""
    words = (
        "our fau" + "lt",
        "thinking alo" + "ud",
        "searching its own con" + "text",
        "hear_ap" + "art",
        "to me" + "nd",
        "thrown? aw" + "ay",
        "threw aw" + "ay",
    )
    banned = re.compile(r"\b(" + "|".join(words) + r")\b", re.IGNORECASE)
    pages = [path for path in texts() if name_of(path) not in ("docs/log.md", "CHANGELOG.md") and path.suffix not in (".json", ".txt")]
    found = [
        f"{name_of(path)}: {match[0]}" for path in pages for match in banned.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found
