from helpers import text


def test_spanish_numbers():
    assert text.number(1234) == "1234"
    assert text.number(60000) == "60\u202f000"
    assert text.number(1234567.891, 1) == "1\u202f234\u202f567,9"
    assert text.number(-0.5) == "−0,500"
    assert text.percent(0.9125) == "91,25\u00a0%"
    assert text.with_interval(0.9, 0.85, 0.95, 1) == "90,0\u00a0% [85,0; 95,0]"
