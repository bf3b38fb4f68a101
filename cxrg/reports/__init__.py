"""What a radiology report states: findings with their side, zone and certainty, as weak labels.

``statements(text)`` reads free text with rules: phrases of a vocabulary (``vocabulary.toml`` and
the lists of `cxrg.chest`), and NegEx (Chapman et al., J Biomed Inform 2001, 34:301) for what is
denied, doubted or not stated at all. What NegEx lacks is here: clauses that end its scopes, places,
and normal statements.
"""

from cxrg.reports.read import Reading, read, statements
from cxrg.reports.statement import Certainty, Side, Statement

__all__ = ["Certainty", "Reading", "Side", "Statement", "read", "statements"]
