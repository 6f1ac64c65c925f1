"""Prose with numbers in notebooks: the cell magic %%prosa, captions beneath figures, the table of verdicts.

    %%prosa mnist-casi-todo-cero
    El {{ strokes.zeros | pct }} de los píxeles vale 0 (@fig:mnist-ejemplos), como cuenta [@lecun1998].

The cell is Markdown, its numbers filled in by Jinja from the notebook's names (filling.py has the filters).
After the magic stand the claims that the paragraph asserts: where one does not hold, a line says so in its
place. A notebook's reader sees references and citations as words; the output's metadata keeps the text as it
is written, of which pages and the article make links with their own numbers.
"""
import contextlib
from typing import NamedTuple

from IPython import get_ipython
from IPython.display import display

from helpers.artifacts import progress
from helpers.report import citations, figures, filling, labels, parameters
from helpers.report.claims import judging, record

_shown = [0]  # how many outputs the running cell has displayed
_own = []  # the path of a notebook that is not in notebooks/


class Said(NamedTuple):
    """Markdown with its numbers, references unresolved, and the claims that it rests on, Judged."""
    markdown: str
    claims: list


def install(notebook=None):
    """Register %%prosa, and the captions beneath figures and tables, in the running kernel.

    notebook: the path of the one that runs, where it is not in notebooks/ and its text refers to labels of
    its own. Again: no effect. Raises RuntimeError outside a kernel.
    """
    shell = get_ipython()
    if shell is None:
        raise RuntimeError("prose.install() is for a notebook: there is no kernel here")
    _own[:] = [] if notebook is None else [notebook]
    shell.register_magic_function(prosa, "cell", "prosa")
    shell.events.register("pre_run_cell", _begin)
    shell.events.register("post_run_cell", _caption)
    publisher = shell.display_pub
    if hasattr(publisher, "register_hook"):  # a kernel's, and not a terminal's
        publisher.unregister_hook(_count)
        publisher.register_hook(_count)


def start(namespace, **allowed):
    """Begin a notebook: check its parameters (see `parameters.check`), set the figures' style, and `install`.

    namespace: the notebook's globals().
    """
    parameters.check(namespace, **allowed)
    figures.style()
    install()


def prosa(line, cell):
    """Show a cell of Markdown, its numbers filled in: the magic %%prosa. line: names of claims."""
    shell = get_ipython()
    with _told_in_a_line():
        number = len(shell.history_manager.input_hist_parsed) - 1  # the shell's count may be ahead
        where = f"the cell In [{number}], «{' '.join(cell.split()[:8])} …»"
        _show(said(line.split(), cell, shell.user_ns, where), where)


def said(names, template, namespace, where):
    """Return what a paragraph says: its text with the numbers of `namespace`, or what stands in its place.

    names: of the claims that it asserts. where: of the cell, with which a message begins. Raises ValueError
    for a claim, a name or an attribute that is not there.
    """
    try:
        claims = [record.named(name) for name in names]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    judged = [judging.judge(claim, namespace, where) for claim in claims]
    return Said(judging.instead(judged) or filling.fill(template, namespace, where).strip(), judged)


def verdicts(namespace, *names):
    """Show the table of verdicts on the draft, of the claims of these names: verdicts(globals(), …).

    Raises ValueError for a name that is no claim's, or one that judges nothing of the draft, or a fact that
    is not there.
    """
    with _told_in_a_line():
        claims = [record.named(name) for name in names]
        for claim in claims:
            if claim.draft is None:
                raise ValueError(f"the claim {claim.name} judges nothing of the draft")
        judged = [judging.judge(claim, namespace, "the table of verdicts") for claim in claims]
        _show(Said(judging.verdict_table(judged, [claim.draft for claim in claims]), judged),
              "the table of verdicts")


def show_text(markdown):
    """Show Markdown whose references and citations a notebook's reader sees as words, and pages as links."""
    _show(Said(markdown, []), "a text that a cell shows")


def _show(what, where):
    try:
        words = citations.in_words(what.markdown, *_own)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    kept = {"markdown": what.markdown, "claims": [claim._asdict() for claim in what.claims]}
    display({"text/markdown": words, "text/plain": words}, raw=True, metadata={"prosa": kept})


@contextlib.contextmanager
def _told_in_a_line():
    """Let an error be shown as its message alone, and said in the terminal."""
    try:
        yield
    except ValueError as error:
        error._render_traceback_ = lambda message=str(error): [f"ValueError: {message}"]
        progress.announce(str(error))
        raise


def _begin(info):
    _shown[0] = 0


def _count(message):
    _shown[0] += message["header"]["msg_type"] == "display_data"
    return message


def _caption(result):
    """Show the caption of the figure or table that a cell has shown, with its number."""
    source = result.info.raw_cell or ""
    if not source.startswith("#|") or not result.success or not (_shown[0] or result.result is not None):
        return
    options, _ = labels.split_options(source)
    for kind in ("fig", "tbl"):
        if f"{kind}-cap" in options:
            known = labels.known(*_own).get(options.get("label"), "")
            number = options.get("num", known.partition("\u00a0")[2] or None)
            with _told_in_a_line():
                words = citations.in_words(labels.caption(kind, number, options[f"{kind}-cap"]), *_own)
                display({"text/markdown": words, "text/plain": words}, raw=True, metadata={"caption": True})
