"""What a claim is, and all there are."""
import importlib
import pkgutil
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from helpers.report import citations, claims

VERDICTS = ("se confirma", "se confirma solo", "no se confirma", "se refuta")


@dataclass(frozen=True)
class Draft:
    """What the draft of 2021 said, where ("§ 3.2"), and the verdict, which begins with one of VERDICTS."""
    said: str
    where: str
    verdict: str

    def __post_init__(self):
        if not self.verdict.startswith(VERDICTS):
            raise ValueError(f"a verdict begins with {', '.join(VERDICTS)}, got {self.verdict!r}")


@dataclass(frozen=True)
class Claim:
    """A sentence of the report, and when it is true.

    name: of small letters, digits and hyphens. says: the sentence, as it stands of the published execution,
    without its final point. holds: when it is true, a Jinja expression of the notebook's facts. found: what
    was found, a Jinja template that reads on after a colon, without final point. measured: whether an
    execution could measure it at all, an expression as `holds`. draft: what of the draft it judges.
    """
    name: str
    says: str
    holds: str
    found: str
    measured: str = "true"
    draft: Draft | None = None

    def __post_init__(self):
        if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(f"a claim's name is of small letters, digits and hyphens, got {self.name!r}")
        for words in (self.says, self.found):
            if not words or words != words.strip() or words.endswith("."):
                raise ValueError(f"{self.name}: text without a final point is wanted, got {words!r}")


class Judged(NamedTuple):
    """A claim, judged: holds is None where the execution could not measure it, and then `found` is empty."""
    name: str
    holds: bool | None
    says: str
    found: str


@lru_cache(maxsize=1)
def chapters():
    """Return the claims of each chapter: dict of its number, "01", to a dict of names to Claims.

    Raises ValueError for a name that is there twice.
    """
    found, names = {}, set()
    for module in pkgutil.iter_modules(claims.__path__):
        if module.name.startswith("chapter_"):
            each = importlib.import_module(f"{claims.__name__}.{module.name}").CLAIMS
            for claim in each:
                if claim.name in names:
                    raise ValueError(f"the claim {claim.name} is there twice")
                names.add(claim.name)
            found[module.name.removeprefix("chapter_")] = {claim.name: claim for claim in each}
    return found


def named(name):
    """Return the claim of this name; ValueError, with those that look alike, where there is none."""
    known = {name: claim for each in chapters().values() for name, claim in each.items()}
    if name not in known:
        raise ValueError(f"there is no claim {name}{citations.alike(name, known)}")
    return known[name]
