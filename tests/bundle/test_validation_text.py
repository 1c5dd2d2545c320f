"""The validation on a card in sentences."""

from pidgan.bundle.validation_text import sentences


def test_rows_are_readable() -> None:
    rows = {"floor": [59957, 59957], "n_eff": 33721.5, "sum_weights": 44946.6}
    assert list(sentences({"rows": rows | {"test": 59958}})) == [
        "rows floor: 59957, 59957",
        "rows effective: 33,722",
        "rows sum of weights: 44,947",
        "rows test: 59958",
    ]
    assert list(sentences({"losses": [1.0] * 9})) == ["losses: 9 values"]
