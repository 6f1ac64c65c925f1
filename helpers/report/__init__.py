"""All that a reader sees, in Spanish: numbers and prose, the parameters of notebooks, figures, pages.

`parameters` checks what a notebook is given, `execute` runs it, `grid` runs it many times, `text` writes numbers and
tables, `page` makes a notebook a page, `article` and `appendix` the report, `explorer` the page with sliders.
"""

__all__ = ["appendix", "article", "execute", "explorer", "figures", "grid", "page", "parameters", "text"]
