"""A config that writes nearly every key there is, one to a line, and the tools that break it line by line.

Lines and dotted paths are worked out here from the indentation alone, so that they can be held against what the loader says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.plan import Plan, plan_file
from pipeline.storage.errors import UserError

RICH = """\
# A comment, so that line numbers are not counted from the first key.
experiments:
  first_one:
    question: Which networks remember?
    base:
      task:
        name: copy
        symbols: 4
        delay:
          log_uniform: [1, 20]
        alphabet: 8
        recall: forward
        selective: false
        noise: 2
      network:
        name: sequence
        mixer:
          name: lstm
          init: chrono
          forget_bias: 1.5
          horizon: 50
        width: 32
        depth: 2
        feedforward: 1.0
        norm: rms
        final_norm: none
        residual: true
        dropout: 0.1
        context: 1000
      learner:
        name: supervised
        rows: 300k
        batch_size: 16
        learning_rate: 1e-2
        optimizer: adamw
        betas: [0.9, 0.99]
        weight_decay: 0.01
        lr_schedule: cosine
        warmup_steps: 10
        min_lr_ratio: 0.1
        half_life: 100
        max_grad_norm: 0.5
        ema_decay: 0.9
        data: shards
        distinct_rows: 2_000
        validation_rows: 100
        loader: memory
        stop_at: 0.99
        evaluate_every: 20
        keep: [last, best, 100]
        select: best
        curriculum:
          column: delay
          start: 4
          factor: 1.5
          threshold: 0.9
          upper: 0.6
          window: 20
      evaluate:
        rows: 200
        delays: [5, 10]
        symbols: [4]
      seed: 7
    sweep:
      network.mixer: [gru, lstm]
      task.recall: [forward, reverse]
    variants:
      wide:
        network.width: 64
    figures:
      - name: accuracy_by
        column: delay
      - name: learning_curves
        title: Curves
runtime:
  threads: 1
  device: auto
  checkpoint_seconds: 5.0
  mem_mb: 500
  minutes: 10
  gpus: 0
  processes: 1
  nodes: 1
  container: image.sif
tracking:
  wandb: off
  project: recurlab
  group: mine
  tags: [a, b]
"""

SMALL = """\
experiments:
  a:
    base:
      task: {name: copy, symbols: 3, delay: 9}
      network: {name: sequence, mixer: gru, width: 8}
      learner: {name: supervised, steps: 5}
"""


class Entry(NamedTuple):
    """One line of a config that holds a key: line and last line of its block, counted from 1, and where it stands."""

    line: int
    end: int
    indent: str
    dash: str
    key: str
    value: str
    path: str

    @property
    def parent(self) -> str:
        """The path of the mapping that the key is in."""
        return self.path[: -len(self.key) - 1] if self.path != self.key else ""


def entries(text: str = RICH) -> Iterator[Entry]:
    """Every line that holds a key, in order."""
    lines = text.splitlines()
    stack: list[tuple[int, str]] = []
    index = -1
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(r"( *)(- )?(?:([\w.]+):(?: (.*))?|(\w+))", line)
        if not found or found[0].startswith("#"):
            continue
        indent, dash, key, value = found[1], found[2] or "", found[3], found[4] or ""
        depth = len(indent) + len(dash)
        while stack and stack[-1][0] >= (len(indent) if dash else depth):
            stack.pop()
        if dash:
            index += 1
            stack.append((len(indent), f"{stack[-1][1]}[{index}]"))
        if key is None:
            continue
        path = f"{stack[-1][1]}.{key}" if stack else key
        stack.append((depth, path))
        end = number
        while end < len(lines) and len(lines[end]) - len(lines[end].lstrip()) > depth:
            end += 1
        yield Entry(number, end, indent, dash, key, value, path)


def replaced(entry: Entry, *new: str, text: str = RICH) -> str:
    """The config with an entry's whole block replaced by other lines, written without their indentation."""
    lines = text.splitlines()
    first = f"{entry.indent}{entry.dash}"
    written = [(first if number == 0 else " " * len(first)) + line for number, line in enumerate(new)]
    return "\n".join([*lines[: entry.line - 1], *written, *lines[entry.end :]]) + "\n"


def block(entry: Entry, text: str = RICH) -> list[str]:
    """The lines of an entry's block without the indentation of its first."""
    depth = len(entry.indent) + len(entry.dash)
    return [line[depth:] for line in text.splitlines()[entry.line - 1 : entry.end]]


def plan_of(text: str, folder: Path) -> Plan:
    """The plan of a config text."""
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return plan_file(path)


def complaint(text: str | bytes, folder: Path) -> tuple[int, str, str]:
    """Line, dotted key (empty where there is none) and message that the loader answers a wrong config with; nothing is written."""
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        plan_file(path)
    except UserError as error:
        said = str(error)
    else:
        raise AssertionError(f"accepted:\n{text!r}")
    assert sorted(folder.iterdir()) == [path]
    assert "\n" not in said
    found = re.fullmatch(rf"{re.escape(str(path))}(?::(\d+))?: (?:([\w.\[\]/]+): )?(.+)", said)
    assert found, said
    readable(found[3])
    return int(found[1] or 0), found[2] or "", found[3]


def readable(message: str) -> None:
    """A message says what is expected, in words that are neither pydantic's nor Python's."""
    assert re.search(r"expected|did you mean|missing|duplicate key|not YAML", message), message
    assert not re.search(r"Input|should|valid |Commented|<class|ctx|None|True|False|instance|parse", message), message
    # Three lines of a terminal, for what a misspelt mixer or figure is answered with: the whole catalogue of them.
    assert len(message) < 360, message
