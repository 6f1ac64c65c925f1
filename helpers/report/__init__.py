"""All that a reader sees, in Spanish: prose and its claims, numbers, tables, figures, pages.

`prose` fills in the numbers of %%prosa and holds `claims` against them; `text` writes numbers, `tables` the
chapters' tables; `parameters` checks what a notebook is given, `execute` runs it, `grid` runs it many times;
`page` makes a notebook a page, `article` and `appendix` the report, `explorer` the page with sliders.
"""

__all__ = [
    "appendix", "article", "claims", "execute", "explorer", "figures", "grid", "page", "parameters", "prose",
    "tables", "text"]
