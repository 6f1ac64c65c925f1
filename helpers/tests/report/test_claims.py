"""Claims: what is judged, what notebooks name, and whether what the report says is true of what ships."""
import math
from types import SimpleNamespace

import nbformat
import pytest

from helpers.artifacts import paths
from helpers.report import prose
from helpers.report.claims import judging, reading, record
from helpers.report.claims.record import Claim, Draft

new = nbformat.v4
NOTEBOOKS = sorted((paths.ROOT / "notebooks").glob("[0-9]*.ipynb"))
EXECUTED = paths.ROOT / "notebooks" / "executed" / "report"
ZEROS = Claim("ceros", "Casi todo es cero", "strokes.zeros > 0.75", "es cero el {{ strokes.zeros | pct }}")


@pytest.fixture
def known(monkeypatch):
    """One claim of a chapter 01, and no other."""
    monkeypatch.setattr(record, "chapters", lambda: {"01": {"ceros": ZEROS}})


def facts(zeros):
    return {"strokes": SimpleNamespace(zeros=zeros)}


def notebook(*sources):
    return new.new_notebook(cells=[new.new_code_cell(source) for source in sources])


def test_a_claim_that_holds_lets_its_paragraph_stand(known):
    said = prose.said(["ceros"], "El {{ strokes.zeros | pct }}.", facts(0.8), "here")
    assert said.markdown == "El 80.0\u00a0%."
    assert said.claims == [("ceros", True, "Casi todo es cero", "es cero el 80.0\u00a0%")]


@pytest.mark.parametrize("zeros, found", [(0.5, "50.0\u00a0%"), (math.nan, "–\u00a0%")])
def test_a_claim_that_does_not_hold_takes_its_place(zeros, found, known):
    said = prose.said(["ceros"], "El {{ strokes.zeros | pct }}.", facts(zeros), "here")
    assert said.markdown.endswith("El informe publicado dice: «Casi todo es cero». Aquí, en cambio: es cero "
                                  f"el {found}.")
    assert said.claims[0].holds is False


@pytest.mark.parametrize("holds, message", [
    ("strokes.zerros > 0.75", "here, claim ceros: .* has no attribute 'zerros'"),
    ("stroke.zeros > 0.75", "claim ceros: 'stroke' is undefined"),
    ("strokes.zeros >", "claim ceros: .*line 1"), ("strokes.zeros > 'a'", "claim ceros: TypeError")])
def test_a_condition_that_cannot_be_judged_is_an_error(holds, message):
    with pytest.raises(ValueError, match=message):
        judging.judge(Claim("ceros", "Sí", holds, "no"), facts(0.5), "here")


def test_what_could_not_be_measured_neither_holds_nor_fails():
    claim = Claim("ceros", "Casi todo es cero", "nothing.there", "{{ nothing.there }}",
                  measured="'cifar10' in found")
    judged = judging.judge(claim, {"found": {"mnist": 1}}, "here")
    assert judged.holds is None and judging.instead([judged]).startswith("**En esta ejecución no se midió.**")


def test_an_unknown_claim_is_named_with_those_alike(known):
    with pytest.raises(ValueError, match="here: there is no claim cerros .did you mean ceros"):
        prose.said(["cerros"], "", {}, "here")


@pytest.mark.parametrize("fields, message", [
    (("Ceros", "Sí", "true", "no"), "small letters"), (("ceros", "Sí.", "true", "no"), "final point"),
    (("ceros", "Sí", "true", ""), "final point")])
def test_a_claim_has_its_form(fields, message):
    with pytest.raises(ValueError, match=message):
        Claim(*fields)


def test_a_verdict_has_its_words():
    with pytest.raises(ValueError, match="got 'depende'"):
        Draft("Sí", "§ 1", "depende")


def _executed(*judged):
    told = {"prosa": {"markdown": "", "claims": [claim._asdict() for claim in judged]}}
    cells = [new.new_code_cell("%%prosa", outputs=[new.new_output("display_data", data={}, metadata=told)])
             for _ in range(2)]
    return new.new_notebook(cells=[new.new_markdown_cell("# Uno"), *cells])


def test_only_claims_that_do_not_hold_are_told_and_once():
    judged = [judging.judge(ZEROS, facts(zeros), "")
              for zeros in (0.8, 0.5)] + [record.Judged("otra", None, "Es verde", "")]
    assert reading.judged(_executed(*judged)) == judged
    assert reading.broken(_executed(*judged)) == [
        "ceros does not hold here. Published: Casi todo es cero. Found: es cero el 50.0\u00a0%."]
    assert reading.broken(_executed(judged[0])) == []


@pytest.mark.parametrize("sources, faults", [
    (["%%prosa ceros\nEl {{ x | pct }}."], []),
    (["%%prosa\nNada.", "prose.verdicts(globals(), 'ceros')"], []),
    (["%%prosa\nEl {{ x }}.", "%%prosa ceros\nSí."],
     ["no claim is named by the text «El {{ x }}. …», which has a number"]),
    (["%%prosa ceros otra\nSí."], ["there is no claim otra in chapter_01.py"]),
    (["1 + 1"], ["nothing names the claim ceros of chapter_01.py"]),
    (["%%prosa ceros\n## Uno\n\nSí."], ["a heading or label would be lost with the claim of the text «## Uno "
                                        "Sí. …»"]),
    (["%%prosa ceros\n$$a$$ {#eq:a}"], ["a heading or label would be lost with the claim of the text «$$a$$ "
                                        "{#eq:a} …»"])])
def test_what_a_notebook_lacks_is_told(sources, faults, known):
    assert reading.faults(notebook(*sources), "01") == faults


def test_a_name_that_is_there_twice_is_refused(tmp_path, monkeypatch):
    for number in ("91", "92"):
        (tmp_path / f"chapter_{number}.py").write_text(
            "from helpers.report.claims.record import Claim\nCLAIMS = (Claim('igual', "
            "'Sí', 'true', 'no'),)\n", "utf8")
    monkeypatch.setattr(record.claims, "__path__", [str(tmp_path)])
    with pytest.raises(ValueError, match="the claim igual is there twice"):
        record.chapters.__wrapped__()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_number_of_a_chapter_is_claimed_and_every_claim_named(path):
    assert reading.faults(nbformat.read(path, 4), path.stem[:2]) == []


def test_every_file_of_claims_has_its_notebook():
    assert set(record.chapters()) <= {path.stem[:2] for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_claim_of_the_report_holds(path):
    if not (EXECUTED / path.name).is_file():
        pytest.skip("make report has not executed it here")
    assert reading.broken(nbformat.read(EXECUTED / path.name, 4)) == []
