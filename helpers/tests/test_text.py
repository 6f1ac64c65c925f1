from helpers import text


def test_spanish_numbers():
    assert text.number(1234) == "1,234"
    assert text.number(60000) == "60,000"
    assert text.number(1234567.891, 1) == "1,234,567.9"
    assert text.number(-0.5) == "−0.500"
    assert text.number(-1e-9, 3) == "0.000" and text.number(-0.0) == "0"
    assert text.percent(0.9125) == "91.25\u00a0%"
    assert text.with_interval(0.9, 0.85, 0.95, 1) == "90.0\u00a0% [85.0; 95.0]"
    assert text.bracketed(90.25, 85, 95, decimals=1) == "90.2 [85.0;\u00a095.0]"
    assert text.bracketed(-0.5, -1.25, 1.5) == "−0.500 [−1.250;\u00a01.500]"


def test_what_is_no_number_is_a_dash():
    nan, inf = float("nan"), float("inf")
    assert [text.number(v) for v in (nan, inf, -inf)] == ["–", "∞", "−∞"]
    assert text.bracketed(nan, nan, nan) == text.with_interval(nan, 0, 1) == "–"
    assert text.bracketed(1.5, nan, nan, decimals=1) == "1.5"
    assert text.bracketed(1.5, -inf, 2, decimals=1) == "1.5 [−∞;\u00a02.0]"
