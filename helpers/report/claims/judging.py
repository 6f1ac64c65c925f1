"""Claims held against the facts of an execution: what is said of those that hold, and of the others."""
from helpers.report import filling, text
from helpers.report.claims.record import Judged

# What stands in a paragraph's place, and in a verdict's.
FAILED = ("**En esta ejecución no se cumple.** El informe publicado dice: «{{ claim.says }}». "
          "Aquí, en cambio: {{ claim.found }}.")
UNMEASURED = "**En esta ejecución no se midió.** El informe publicado dice: «{{ claim.says }}»."
VERDICT_FAILED = "aquí no se sostiene el veredicto publicado («{{ verdict }}»)"
VERDICT_UNMEASURED = "no se midió en esta ejecución"
SAID = "{{ draft.said }} ({{ draft.where }})"


def judge(claim, namespace, where):
    """Return a Claim as Judged by the facts in `namespace`.

    Raises ValueError, which begins with `where` and names the claim, for a fact that is not there.
    """
    where = f"{where}, claim {claim.name}"
    if not filling.holds(claim.measured, namespace, where):
        return Judged(claim.name, None, claim.says, "")
    return Judged(claim.name, filling.holds(claim.holds, namespace, where), claim.says,
                  filling.fill(claim.found, namespace, where))


def instead(judged):
    """Return what stands in place of a paragraph if a claim of it fails or was not measured; or None."""
    lines = [filling.fill(UNMEASURED if claim.holds is None else FAILED, {"claim": claim}, claim.name)
             for claim in judged if not claim.holds]
    return "\n\n".join(lines) or None


def verdict_table(judged, drafts):
    """Return the table of verdicts as Markdown: what each draft said, what was found, the verdict.

    judged, drafts: of the same claims, Judged and Draft.
    """
    rows = []
    for claim, draft in zip(judged, drafts, strict=True):
        verdict = {True: "{{ verdict }}", False: VERDICT_FAILED, None: VERDICT_UNMEASURED}[claim.holds]
        rows.append([filling.fill(SAID, {"draft": draft}, claim.name), claim.found or "–",
                     filling.fill(verdict, {"verdict": draft.verdict}, claim.name)])
    return text.markdown(rows, text.CLAIMS)
