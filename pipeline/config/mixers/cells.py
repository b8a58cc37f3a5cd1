"""Nonlinear recurrent cells. Code: `pipeline/mixers/`, one file each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.mixers.base import Gated, Mixer


class Rnn(Mixer):
    """Elman RNN: tanh of a linear map of input and state, no gates."""

    implementation: ClassVar[str] = "pipeline.mixers.rnn:RNN"
    display_name: ClassVar[str] = "RNN"
    source: ClassVar[str] = "Elman 1990; orthogonal initialisation: Saxe et al. 2014"

    name: Literal["rnn"] = "rnn"
    recurrent_init: Literal["uniform", "orthogonal"] = Field(
        default="orthogonal", description="initial recurrent matrix; orthogonal keeps the norm of the state, uniform is torch's default"
    )


class GatedCell(Gated):
    """Fields of gated cells."""

    recurrent_init: Literal["uniform", "orthogonal"] = Field(
        default="orthogonal",
        description="initial recurrent matrices; orthogonal (one per gate) keeps the norm of the state, uniform is torch's default",
    )


class Lstm(GatedCell):
    """Long short-term memory: one hidden and one cell state of the network's width, with input, forget and output gates."""

    implementation: ClassVar[str] = "pipeline.mixers.lstm:LSTM"
    display_name: ClassVar[str] = "LSTM"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997; Gers et al. 2000; chrono: Tallec & Ollivier 2018"

    name: Literal["lstm"] = "lstm"


class Gru(GatedCell):
    """Gated recurrent unit in the form of cuDNN: reset applied after the recurrent product, update gate z keeps the state."""

    implementation: ClassVar[str] = "pipeline.mixers.gru:GRU"
    display_name: ClassVar[str] = "GRU"
    source: ClassVar[str] = "Cho et al. 2014 (v3 form); chrono: Tallec & Ollivier 2018"

    name: Literal["gru"] = "gru"


class GruV1(GatedCell):
    """Gated recurrent unit as first published: reset applied before the recurrent product, update gate z writes the state."""

    implementation: ClassVar[str] = "pipeline.mixers.gru_v1:GRUv1"
    display_name: ClassVar[str] = "GRU v1"
    source: ClassVar[str] = "Cho et al. 2014 (v1 form); chrono: Tallec & Ollivier 2018"

    name: Literal["gru_v1"] = "gru_v1"


class MultiplicativeLstm(GatedCell):
    """Multiplicative LSTM: m = (W_m x) * (U_m h) replaces h in the gates, so the recurrent transition depends on the input."""

    implementation: ClassVar[str] = "pipeline.mixers.multiplicative_lstm:MultiplicativeLSTM"
    display_name: ClassVar[str] = "multiplicative LSTM"
    source: ClassVar[str] = "Krause et al. 2016; chrono: Tallec & Ollivier 2018"

    name: Literal["multiplicative_lstm"] = "multiplicative_lstm"


class MultiplicativeGru(GatedCell):
    """Multiplicative GRU: m = (W_m x) * (U_m h) replaces h in gates and candidate; the state is still h."""

    implementation: ClassVar[str] = "pipeline.mixers.multiplicative_gru:MultiplicativeGRU"
    display_name: ClassVar[str] = "multiplicative GRU"
    source: ClassVar[str] = "the factored product of Krause et al. 2016 in the cell of Cho et al. 2014"

    name: Literal["multiplicative_gru"] = "multiplicative_gru"


class InputMultiplicativeLstm(GatedCell):
    """LSTM with input m * x, m = W_m x + U_m h + b_m: the variant of the copy study (rnn-copy-task), for reproduction."""

    implementation: ClassVar[str] = "pipeline.mixers.input_multiplicative_lstm:InputMultiplicativeLSTM"
    display_name: ClassVar[str] = "input-multiplicative LSTM"
    source: ClassVar[str] = "https://github.com/hunglongtrangithub/rnn-copy-task, initialisation included"

    name: Literal["input_multiplicative_lstm"] = "input_multiplicative_lstm"
    recurrent_init: Literal["uniform", "orthogonal"] = Field(
        default="uniform",
        description="initial recurrent matrices; uniform as published, orthogonal (one per gate) keeps the norm of the state",
    )


class InputMultiplicativeGru(GatedCell):
    """GRU with input m * x, m = W_m x + U_m h + b_m: the variant of the copy study (rnn-copy-task), for reproduction."""

    implementation: ClassVar[str] = "pipeline.mixers.input_multiplicative_gru:InputMultiplicativeGRU"
    display_name: ClassVar[str] = "input-multiplicative GRU"
    source: ClassVar[str] = "https://github.com/hunglongtrangithub/rnn-copy-task, initialisation included"

    name: Literal["input_multiplicative_gru"] = "input_multiplicative_gru"
    recurrent_init: Literal["uniform", "orthogonal"] = Field(
        default="uniform",
        description="initial recurrent matrices; uniform as published, orthogonal (one per gate) keeps the norm of the state",
    )
