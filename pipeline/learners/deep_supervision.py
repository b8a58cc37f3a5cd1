"""Deep supervision of a recursive network (Wang et al. 2025, HRM; Jolicoeur-Martineau 2025, TRM): every update is one supervision step.

Rows stay in the batch with their latents, which carry no gradient, until they halt; then a new row takes their place:

    z, logits, q = network(row, z)                    gradients of this step only
    loss = sum over rows (cross-entropy(logits, target) + q_coef BCE(q_halt, all cells right)) / batch
    steps += 1;  halted = steps = supervision, or q_halt > 0 and steps >= m      m: drawn anew in 2..supervision with probability `exploration`

With halting: continue, a row halts if q_halt > q_continue, and q_continue learns sigmoid(max(q_halt', q_continue')) of one step more, or
sigmoid(q_halt') at the last step. With warm_up: random, every update has new rows, which take n ~ U{0..supervision-1} steps without gradient first.
With several `attempts`, a row is tried from each start, and only the attempt with the lowest loss is corrected; q learns from all, and the row
halts as soon as one of them would.

Notation: B = batch size over all ranks, R = rows and attempts of this rank, row after row, T = cells.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.config import learners
from pipeline.learners import parallel
from pipeline.learners.base import MODEL, Problem
from pipeline.learners.cell_loss import cell_loss
from pipeline.learners.from_rows import VALIDATION_BATCH, FromRows
from pipeline.learners.optimization import make_rules
from pipeline.learners.row_queue import RowQueue, Rows
from pipeline.learners.sampler import sequential_batches
from pipeline.networks.flops import StepCosts
from pipeline.networks.recursive import CONTINUE, HALT, Carry, RecursiveNetwork, perturb
from pipeline.ops.state import concatenate, cut, transform, where
from pipeline.storage.rng import derive_key, generator


class DeepSupervision(FromRows):
    """One supervision step of every row per update. The state of this rank's rows, and who has halted, is part of the checkpoint."""

    config: learners.DeepSupervision
    network: RecursiveNetwork

    def __init__(self, config: learners.DeepSupervision, network: nn.Module, problem: Problem, seed: int, device: torch.device) -> None:
        super().__init__(config, network, problem, seed, device, make_rules(config, network))
        self.mine = parallel.shard(config.batch_size)
        self.queue = RowQueue(self.sampler, config.batch_size, device)
        self.rows: Rows | None = None
        self.steps_B = torch.zeros(config.batch_size, dtype=torch.int64, device=device)
        self.halted_B = torch.ones(config.batch_size, dtype=torch.bool, device=device)
        self.carry: Carry | None = None

    def collect(self) -> Rows:
        """Return the rows of the next update: those still at work, and new ones in place of those that halted."""
        if self.config.warm_up == "random":
            self.rows = self.queue.replace(None, torch.ones_like(self.halted_B))
        else:
            self.rows = self.queue.replace(self.rows, self.halted_B)
        return self.rows

    @property
    def examples_seen(self) -> int:
        """Rows drawn so far, which the queue counts; the host waits for a GPU to know it."""
        return self.queue.taken

    @examples_seen.setter
    def examples_seen(self, _: int) -> None: ...

    def learn_from(self, rows: Rows) -> dict[str, Tensor | float]:
        """Take one supervision step with all rows, and one optimizer step."""
        attempts, outer = self.config.attempts, self._outer()
        mine = rows.part(self.mine).repeated(attempts)
        carry, steps_R = self._carried(mine), torch.where(self.halted_B, 0, self.steps_B)[self.mine].repeat_interleave(attempts)
        self.optimizers.zero_grad()
        size = (self.config.micro_batch_size or self.config.batch_size) * attempts
        parts = [(at, at + size) for at in range(0, len(steps_R), size)]
        done = [self._gradients(mine.part(slice(*part)), cut(carry, *part), steps_R[slice(*part)], outer) for part in parts]
        carry = self.carry = concatenate([carried for carried, _ in done])
        metrics = {name: torch.stack([found[name] for _, found in done]).sum() for name in done[0][1]}
        self.share_gradients(rows.inputs.get("identifier_B"), *metrics.values())
        norms = self.optimizers.step(self.steps, flops=self.flops_seen)
        self._count_step(carry.q_B2)
        return {**metrics, **norms, "train_halted": self.halted_B.double().mean()}

    def count_flops(self, costs: StepCosts, rows: Rows) -> int:
        """Count the supervision steps of all rows and attempts, of those without gradient the forward pass."""
        outer, count = self._outer(self.steps - 1), len(rows.tokens_BT) * self.config.attempts
        cost = costs.row(rows.tokens_BT.shape[1], gradient=self.config.cycles_with_gradient(outer), outer=outer)
        further = self._steps_without_gradient(self.steps - 1) + (self.config.halting == "continue")
        return count * (cost.training + further * cost.forward)

    def _carried(self, rows: Rows) -> Carry:
        """Return the latents of this rank's rows and attempts; those of new rows are fresh."""
        attempts = self.config.attempts
        fresh = [self.network.fresh(len(rows.tokens_BT) // attempts, rows.tokens_BT.shape[1], attempt) for attempt in range(attempts)]
        starts: Carry = transform(lambda *parts: torch.stack(parts, 1).flatten(0, 1), *fresh) if attempts > 1 else fresh[0]
        if self.carry is None or self.config.warm_up == "random":
            return starts
        return where(self.halted_B[self.mine].repeat_interleave(attempts), starts, self.carry)

    def _steps_without_gradient(self, step: int | None = None) -> int:
        """Sample the steps before the update's own; a function of the seed and the number of the update."""
        if self.config.warm_up == "off":
            return 0
        number = self.steps if step is None else step
        return int(generator(derive_key("warm-up", self.seed, number)).integers(self.config.supervision))

    def _outer(self, step: int | None = None) -> int:
        """Return the number of cycles in a supervision step, which grows in the first `grow_until` of the budget."""
        most, growing = self.network.settings.outer, self.config.grow_until
        if not growing:
            return most
        part = (
            self.flops_seen / self.config.flops
            if self.config.flops is not None
            else (self.steps if step is None else step) / (self.config.total_steps or 1)
        )
        return min(most, 1 + int(most * part / growing))

    def _step(self, rows: Rows, carry: Carry, outer: int) -> tuple[Tensor, Carry]:
        carry = perturb(carry, self.config.noise)
        return self.network(rows.tokens_BT, carry, gradient=self.config.cycles_with_gradient(outer), outer=outer, **rows.inputs)

    def _gradients(self, rows: Rows, carry: Carry, steps_R: Tensor, outer: int) -> tuple[Carry, dict[str, Any]]:
        """Accumulate the gradients of some rows and attempts; return their new state and their part of the batch's metrics.

        steps_R: their supervision steps so far.
        """
        with torch.no_grad():
            for _ in range(self._steps_without_gradient()):
                carry = self._step(rows, carry, outer)[1]
        logits_RTC, carry = self._step(rows, carry, outer)
        loss, metrics = self._loss(rows, logits_RTC, carry, steps_R, outer)
        loss.backward()
        return transform(Tensor.detach, carry), metrics

    def _loss(self, rows: Rows, logits_RTC: Tensor, carry: Carry, steps_R: Tensor, outer: int) -> tuple[Tensor, dict[str, Any]]:
        """Return the part that some rows have in the loss, and in its metrics."""
        labelled_RT = rows.labels_BT >= 0
        count_R = labelled_RT.sum(1)
        loss_R = cell_loss(logits_RTC, rows.labels_BT, self.config.loss, self.config.label_smoothing).sum(1) / count_R.clamp(min=1)
        right_RT = (logits_RTC.detach().argmax(-1) == rows.labels_BT) & labelled_RT
        right_R = right_RT.sum(1) == count_R
        q_R = binary_cross_entropy_with_logits(carry.q_B2[:, HALT], right_R.to(carry.q_B2.dtype), reduction="none")
        if self.config.halting == "continue":
            goal_R = self._continue_target(rows, carry, steps_R, outer)
            q_R = q_R + binary_cross_entropy_with_logits(carry.q_B2[:, CONTINUE], goal_R, reduction="none")
        any_R, attempts = (count_R > 0).to(loss_R.dtype), self.config.attempts
        best_R = loss_R.view(-1, attempts).min(1).values
        batch = self.config.batch_size
        answers, q = best_R.sum() / batch, (q_R * any_R).sum() / (batch * attempts)
        solved = right_R.view(-1, attempts).any(1).double().sum() / batch
        assert self.rows is not None
        labelled = (self.rows.labels_BT >= 0).sum().clamp(min=1) * attempts  # of all ranks
        cells = right_RT.double().sum() / labelled
        metrics = {"train_loss": answers.detach().double(), "train_q_loss": q.detach().double(), "train_accuracy": solved}
        return answers + self.config.q_coef * q, {**metrics, "train_cell_accuracy": cells}

    @torch.no_grad()
    def _continue_target(self, rows: Rows, carry: Carry, steps_R: Tensor, outer: int) -> Tensor:
        """Return what the logit to continue learns: the value of one step more."""
        further = self._step(rows, transform(Tensor.detach, carry), outer)[1].q_B2
        last_R = (steps_R + 1) >= self.config.supervision
        return torch.where(last_R, further[:, HALT], further.amax(1)).sigmoid()

    def _count_step(self, q_R2: Tensor) -> None:
        """Count the update, and note who has halted: all ranks know it of all rows."""
        self.steps += 1
        if self.average:
            self.average.update()
        if self.config.warm_up == "random":
            return
        self.steps_B = torch.where(self.halted_B, 0, self.steps_B) + 1
        last_B = self.steps_B >= self.config.supervision
        if self.config.halting == "off":
            self.halted_B = last_B
            return
        wants_R = q_R2[:, HALT] > (q_R2[:, CONTINUE] if self.config.halting == "continue" else 0)
        willing_B = torch.zeros(len(self.steps_B), device=self.device)
        willing_B[self.mine] = wants_R.view(-1, self.config.attempts).any(1).to(willing_B)
        parallel.all_reduce_sum([willing_B])
        self.halted_B = last_B | ((willing_B > 0) & (self.steps_B >= self._least_steps()))

    def _least_steps(self) -> Tensor:
        """Sample the steps before which rows may not halt, for the whole batch, from the seed and the number of the update."""
        random = generator(derive_key("exploration", self.seed, self.steps))
        bound = random.integers(2, max(self.config.supervision, 2) + 1, len(self.steps_B))
        least = torch.from_numpy(bound * (random.random(len(bound)) < self.config.exploration))
        return least.to(self.device, non_blocking=True)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Compute loss per labelled cell, puzzles solved and cells right, after `supervision` steps; q_accuracy: q says which are solved."""
        network: Any = self.models()[MODEL]
        totals = torch.zeros(5, dtype=torch.float64)
        size = self.config.micro_batch_size or self.config.batch_size * VALIDATION_BATCH
        for batch in sequential_batches(self.validation, size, self.inputs):
            rows = Rows.of(batch, self.device)
            carry, logits_BTC = network.fresh(*rows.tokens_BT.shape, generator=_fixed(self.device)), None
            for _ in range(self.config.supervision):
                logits_BTC, carry = network(rows.tokens_BT, carry, **rows.inputs)
            assert logits_BTC is not None
            labelled_BT = rows.labels_BT >= 0
            right_BT = (logits_BTC.argmax(-1) == rows.labels_BT) & labelled_BT
            solved_B = right_BT.sum(1) == labelled_BT.sum(1)
            loss = cell_loss(logits_BTC, rows.labels_BT, self.config.loss).double().sum()
            q_right = ((carry.q_B2[:, HALT] > 0) == solved_B).sum()
            totals += torch.stack([loss, right_BT.sum(), labelled_BT.sum(), solved_B.sum(), q_right]).double().cpu()
        loss, right, cells, solved, q_right = totals.tolist()
        rows = len(self.validation)
        return {
            "loss": loss / max(cells, 1),
            "accuracy": solved / rows,
            "cell_accuracy": right / max(cells, 1),
            "q_accuracy": q_right / rows,
        }

    def state_dict(self) -> dict[str, Any]:
        """Add the rows at work, their steps and latents."""
        return {
            **super().state_dict(),
            "sampler": self.queue.state_dict(),
            "rows": self.rows.state_dict() if self.rows is not None and self.config.warm_up == "off" else None,
            "steps_B": self.steps_B,
            "halted_B": self.halted_B,
            **self.rank_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        super().load_state_dict(state)
        self.queue.load_state_dict(state["sampler"])
        self.rows = Rows.from_state(state["rows"], self.device) if state["rows"] else None
        self.steps_B, self.halted_B = state["steps_B"].to(self.device), state["halted_B"].to(self.device)
        self.load_rank_state(state)

    def rank_state(self) -> dict[str, Any]:
        """Return the latents of this rank's rows, if rows stay in the batch; there are none before the first update."""
        if self.config.warm_up == "random":
            return {}
        return {"carry": None if self.carry is None else {"latents": list(self.carry.latents), "q": self.carry.q_B2}}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Restore the latents of this rank's rows."""
        if saved := state.get("carry"):
            self.carry = Carry(tuple(one.to(self.device) for one in saved["latents"]), saved["q"].to(self.device))


def _fixed(device: torch.device) -> torch.Generator:
    """Return a generator that starts alike at every validation, so that it changes no global state."""
    return torch.Generator(device).manual_seed(0)
