"""Dataset cards."""

from __future__ import annotations

from pipeline.storage.card import CardFields, card


def test_a_card_shows_its_fields() -> None:
    facts = CardFields(
        name="copy-12345678",
        about="Copying.",
        source="",
        specification="symbols: 3\n",
        split="test",
        overlap="No row is in two splits.",
        rows=12_000,
        tokens=1_000_000,
        files={"00000.parquet": (300_000, "ab" * 32), "00001.parquet": (200_000, "cd" * 32)},
        columns={"tokens": "input tokens", "delay": "tokens to wait"},
    )
    text = card(facts)
    assert text.startswith("---\nlicense: cc0-1.0\n---\n\n# copy-12345678\n\nCopying.\n\nSource: this project\n")
    for line in ("| rows | 12,000 |", "| bytes | 500,000 |", "| bytes per token | 0.500 |", f"| 00001.parquet | 200,000 | `{'cd' * 32}` |"):
        assert line in text.splitlines()
    assert "```yaml\nsymbols: 3\n```" in text
    assert 'glob.glob("copy-12345678/*.parquet")' in text
    assert card(facts) == text


def test_an_empty_dataset_has_a_card() -> None:
    assert "| bytes per token | 0.000 |" in card(CardFields("x", "", "", "", "train", "", 0, 0, {}, {}))
