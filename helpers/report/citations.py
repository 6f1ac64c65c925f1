"""References and citations as words, for who reads a notebook: "figura 2.3", "(Madry y otros, 2018)".

Citations are set by pandoc, once for all that the notebooks cite, from notebooks/references.bib.
"""
import difflib
import json
import re
from functools import lru_cache
from pathlib import Path

import nbformat
import pypandoc

from helpers.report import labels

BIBLIOGRAPHY = labels.NOTEBOOKS / "references.bib"
STYLE = Path(__file__).parent / "templates" / "words.csl"
# What is no reference (code, formulas); a label; citations in brackets; one in the text, and its locator.
TOKEN = re.compile(r"""
    (?P<verbatim>(?P<ticks>(?<!`)`+(?!`)).+?(?<!`)(?P=ticks)(?!`) | \$\$.+?\$\$ | (?<!\\)\$[^$]+\$)
    | (?P<label>@(?:fig|tbl|eq|sec):[\w-]+)
    | (?P<citation>\[(?:[^\[\]@]*[^\[\]@\w])?@(?!(?:fig|tbl|eq|sec):)\w[^\[\]]*\](?!\()
        | (?<![\w.@/`])@\w+(?:[:.#$%&+?<>~/-]\w+)*(?:\ \[[^\[\]@]+\])?)""", re.X | re.S)
KEY = re.compile(r"@(\w+(?:[:.#$%&+?<>~/-]\w+)*)")


def in_words(markdown, *notebooks):
    """Return Markdown as JupyterLab can show it: references, citations in words, equations with numbers.

    notebooks: paths of others whose labels may be referred to. Raises ValueError, with what looks alike, for
    a label that no notebook has, or a citation that is not in the bibliography.
    """
    def word(found):
        if found["verbatim"]:
            return found[0]
        return _label(found[0][1:], notebooks) if found["label"] else _cited(found[0])

    def equation(found):
        if not found["label"]:
            return found[0]
        number = _label(found["label"], notebooks).split("(")[1].rstrip(")")
        return f"$${found['tex'].rstrip()} \\tag{{{number}}}$$"

    text = labels.HEADING.sub(lambda found: f"{found['marks']} {found['title']}", markdown)
    return TOKEN.sub(word, labels.EQUATION.sub(equation, text))


def alike(name, known):
    """Return "(did you mean …?)" of the known names that look like `name`, or ""."""
    found = difflib.get_close_matches(name, known, n=2)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def _label(name, notebooks):
    known = labels.known(*notebooks)
    if name not in known:
        raise ValueError(f"no notebook has the label {name}{alike(name, known)}; "
                         "if it is new, save the notebook")
    return known[name]


def _cited(citation):
    """Return a citation in words; ValueError names a key that is not in the bibliography."""
    for key in KEY.findall(citation):
        if key not in _keys():
            raise ValueError(f"{BIBLIOGRAPHY.name} has no entry {key}{alike(key, _keys())}")
    found = _everywhere()
    return found[citation] if citation in found else _set((*found, citation))[citation]


@lru_cache(maxsize=1)
def _keys():
    entries = json.loads(pypandoc.convert_file(str(BIBLIOGRAPHY), "csljson", format="bibtex"))
    return {entry["id"] for entry in entries}


@lru_cache(maxsize=1)
def _everywhere():
    """Return all citations of the notebooks in words: together, to tell apart two of one name and year."""
    texts = [cell.source for path in sorted(labels.NOTEBOOKS.glob("[0-9]*.ipynb"))
             for cell in nbformat.read(path, 4).cells if labels.is_prose(cell)]
    cited = [found[0] for text in texts for found in TOKEN.finditer(text) if found["citation"]]
    return _set(tuple(dict.fromkeys(one for one in cited if _keys().issuperset(KEY.findall(one)))))


@lru_cache(maxsize=64)
def _set(citations):
    if not citations:
        return {}
    text = pypandoc.convert_text("\n\n".join(citations), "plain", "markdown", extra_args=[
        "--citeproc", f"--bibliography={BIBLIOGRAPHY}", f"--csl={STYLE}", "--wrap=none",
        "--metadata=lang:es-MX", "--metadata=suppress-bibliography"])
    return dict(zip(citations, text.strip().split("\n\n"), strict=True))
