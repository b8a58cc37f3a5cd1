"""The public code of Tiny Recursive Models as a peer: its classes, with the weights of a network of ours.

The folder is a checkout of github.com/SamsungSAILMontreal/TinyRecursiveModels; it needs the package einops. Its optimizer adam-atan2 needs a
GPU, so both train with torch's AdamW.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.networks.recursive import RecursiveNetwork

IGNORED = -100
PAD = 0


class Peer:
    """Training steps of the published classes: model, loss, backward pass, AdamW, sign-SGD of the puzzle embedding, moving average."""

    def __init__(self, folder: Path, network: RecursiveNetwork, cells: int, batch: int, supervision: int, ema_decay: float) -> None:
        """Copy the weights of a network with `identifiers`, start: fixed, and full attention or token mixing."""
        sys.path.insert(0, str(folder))
        try:
            from models.ema import EMAHelper  # pyright: ignore[reportMissingImports]
            from models.losses import ACTLossHead  # pyright: ignore[reportMissingImports]
            from models.recursive_reasoning.trm import TinyRecursiveReasoningModel_ACTV1  # pyright: ignore[reportMissingImports]
            from models.sparse_embedding import CastedSparseEmbeddingSignSGD_Distributed  # pyright: ignore[reportMissingImports]
        finally:
            sys.path.remove(str(folder))
        assert network.identifiers is not None
        config, self.batch = network.settings, batch
        mixing = config.mixer.name == "token_mixing"
        self.model = TinyRecursiveReasoningModel_ACTV1(
            {
                "batch_size": batch,
                "seq_len": cells,
                "puzzle_emb_ndim": network.width,
                "num_puzzle_identifiers": network.identifiers.num_embeddings,
                "vocab_size": network.embedding.num_embeddings,
                "H_cycles": config.outer,
                "L_cycles": config.inner,
                "H_layers": 0,
                "L_layers": config.depth,
                "hidden_size": network.width,
                "expansion": 4,
                "num_heads": 1 if mixing else config.mixer.heads,  # pyright: ignore[reportAttributeAccessIssue]
                "pos_encodings": "none" if mixing else "rope",
                "halt_max_steps": supervision,
                "halt_exploration_prob": 0.0,
                "forward_dtype": "float32",
                "mlp_t": mixing,
                "puzzle_emb_len": config.registers,
            }
        )
        inner = self.model.inner
        with torch.no_grad():
            for theirs, ours in paired(inner, network):
                theirs.copy_(ours)
        self.head = ACTLossHead(self.model, "stablemax_cross_entropy").train()
        self.carry: Any = None
        self.ema, self.decay = EMAHelper(ema_decay), ema_decay
        self.ema.register(self.head)
        self._sign_sgd = CastedSparseEmbeddingSignSGD_Distributed
        self.optimizers: list[Any] = []

    def optimize(self, learning_rate: float, betas: tuple[float, float], weight_decay: float, table_rate: float, eps: float = 1e-8) -> None:
        """Create the optimizers; weight decay covers every parameter, as published."""
        table = self._sign_sgd(self.model.puzzle_emb.buffers(), world_size=1, lr=table_rate, weight_decay=weight_decay)
        adamw = torch.optim.AdamW(self.model.parameters(), lr=learning_rate, betas=betas, weight_decay=weight_decay, eps=eps)
        self.optimizers = [table, adamw]

    def step(self, tokens_BT: Tensor, labels_BT: Tensor) -> float:
        """Take one training step; returns the loss divided by the batch size."""
        batch = {"inputs": tokens_BT, "labels": labels_BT, "puzzle_identifiers": torch.zeros(len(tokens_BT), dtype=torch.int64)}
        if self.carry is None:
            self.carry = self.head.initial_carry(batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self.carry, loss, *_ = self.head(return_keys=[], carry=self.carry, batch=batch)
        (loss / len(tokens_BT)).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.head)
        return float(loss.detach()) / len(tokens_BT)

    def gradient(self, weight: Tensor) -> Tensor:
        """Return the last step's gradient of a weight; that of the puzzle embedding is summed over rows, which all have identifier 0."""
        table = self.model.inner.puzzle_emb
        gradient = table.local_weights.grad.sum(0, keepdim=True) if weight is table.weights else weight.grad
        assert gradient is not None
        return gradient

    def averaged(self) -> list[Tensor]:
        """Return the averaged weights, in the order of the model's parameters."""
        return list(self.ema.shadow.values())


def paired(inner: Any, network: RecursiveNetwork) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of tensors with the same role in the published model and in ours."""
    assert network.identifiers is not None and isinstance(network.start_KLD, Tensor)
    pairs = [
        (inner.embed_tokens.embedding_weight, network.embedding.weight),
        (inner.lm_head.weight, network.head.weight),
        (inner.q_head.weight, network.q_head.weight),
        (inner.q_head.bias, network.q_head.bias),
        (inner.puzzle_emb.weights, network.identifiers.weight),
        (inner.H_init, network.start_KLD[0, 0]),
        (inner.L_init, network.start_KLD[0, 1]),
    ]
    blocks: Any = network.blocks[0]
    for theirs, ours in zip(inner.L_level.layers, blocks, strict=True):
        pairs += [
            (theirs.mlp.gate_up_proj.weight, ours.feedforward.into.weight),
            (theirs.mlp.down_proj.weight, ours.feedforward.out.weight),
        ]
        if hasattr(theirs, "mlp_t"):
            pairs += [(theirs.mlp_t.gate_up_proj.weight, ours.mixer.into.weight), (theirs.mlp_t.down_proj.weight, ours.mixer.out.weight)]
        else:
            pairs += [
                (theirs.self_attn.qkv_proj.weight, ours.mixer.project.weight),
                (theirs.self_attn.o_proj.weight, ours.mixer.out.weight),
            ]
    return pairs
