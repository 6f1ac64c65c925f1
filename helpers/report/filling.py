"""Spanish text with its numbers filled in, by Jinja: filters that write them, errors that name what is amiss.

A name that is not there is an error, and so is a number without a filter that says how it is written. Braces
with # are attributes of Markdown, no comments.
"""
from functools import wraps
from numbers import Integral, Real

import jinja2
import numpy as np

from helpers import datasets
from helpers.report import text


def fill(template, namespace, where):
    """Return a template with its numbers filled in from `namespace`, a dict.

    Raises ValueError, which begins with `where`, for a name or attribute that is not there, or what a filter
    refuses.
    """
    try:
        return ENVIRONMENT.from_string(template).render(namespace)
    except Exception as error:  # of the template, or of what it calls
        raise ValueError(f"{where}: {_reason(error)}") from error


def holds(expression, namespace, where):
    """Return whether a Jinja expression is true of what is in `namespace`; raises as for `fill`."""
    try:
        return bool(ENVIRONMENT.compile_expression(expression, undefined_to_none=False)(namespace))
    except Exception as error:
        raise ValueError(f"{where}: {_reason(error)}") from error


def number(value, decimals=None):
    """Write a number, as text.number does."""
    return text.number(value, decimals)


def significant(value, digits=2):
    """Write a number with so many significant digits."""
    return text.significant(value, digits)


def percent(value, decimals=1):
    """Write a proportion as a percentage, "91.3 %"."""
    return text.percent(value, decimals)


def interval(value, decimals=None):
    """Write a value with its interval, "0.52 [0.50; 0.54]"."""
    return text.bracketed(*bounds(value), decimals=decimals)


def interval_percent(value, decimals=1):
    """Write a proportion with its interval, "91.3 % [90.7; 91.8]"."""
    return text.with_interval(*bounds(value), decimals=decimals)


def points(value, decimals=1):
    """Write a difference of proportions in points, with its interval if it has one: "3.2 [1.1; 5.4]"."""
    if isinstance(value, Real):
        return text.number(100 * value, decimals)
    return text.bracketed(*(100 * each for each in bounds(value)), decimals=decimals)


def span(values, decimals=None):
    """Write the least and the greatest of some numbers, "1.1 a 1.3"; one where both read the same."""
    values = list(values)
    return " a ".join(dict.fromkeys(text.number(of_all(values), decimals) for of_all in (min, max)))


def span_percent(values, decimals=1):
    """Write from the least to the greatest of some proportions, "3.1 a 5.2 %"."""
    return f"{span([100 * value for value in values], decimals)}\u00a0%"


def radius(eps, dataset):
    """Write an L-infinity radius as the field does on a data set, a record or its name: "8/255", "0.3"."""
    return text.radius(getattr(dataset, "name", dataset), eps)


def dataset_name(dataset):
    """Write the name of a data set, a record or its name in code: "MNIST"."""
    return datasets.record(getattr(dataset, "name", dataset)).title


def bounds(value):
    """Return (value, low, high) of an estimate with these attributes, or of three numbers.

    Raises ValueError for anything else.
    """
    names = ("value", "low", "high")
    found = [getattr(value, name) for name in names] if all(hasattr(value, name) for name in names) else value
    if np.shape(found) != (3,):
        raise ValueError(f"an interval is a value, its low and its high end, got {value!r}")
    return tuple(found)


def _defined(function):
    """Return a filter that names what is not there, instead of failing at what it makes of it."""
    @wraps(function)
    def guarded(value, *arguments, **options):
        for each in (value, *arguments):
            if isinstance(each, jinja2.Undefined):
                str(each)  # raises, with the name
        return function(value, *arguments, **options)
    return guarded


def _written(value):
    """Return what a value without a filter reads as: text as it is, whole numbers with their commas."""
    if isinstance(value, str | jinja2.Undefined):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return text.number(value)
    raise TypeError(f"{value!r} needs a filter that writes it: {', '.join(FILTERS)}")


def _reason(error):
    message = str(error)
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{message} (line {error.lineno} of the text)"
    return message if isinstance(error, jinja2.UndefinedError) else f"{type(error).__name__}: {message}"


FILTERS = {"num": number, "cifras": significant, "pct": percent, "ic": interval, "ic_pct": interval_percent,
           "puntos": points, "lista": text.listing, "rango": span, "rango_pct": span_percent, "radio": radius,
           "red": text.network_name, "conjunto": dataset_name}
ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined, finalize=_written,
                                 comment_start_string="\0#", comment_end_string="#\0")
ENVIRONMENT.filters |= {name: _defined(function) for name, function in FILTERS.items()}
ENVIRONMENT.globals = {function.__name__: function for function in (min, max, abs, len, round, all, any)}
