"""What a radiology report states: findings with their side, zone and certainty, as weak labels.

``statements(text)`` reads free text with rules: spaCy's tokenizer, sentence splitter and phrase
matchers without any trained model, and NegEx (Chapman et al., J Biomed Inform 2001, 34:301, as in
negspacy) for what is denied, doubted or not stated at all. The words are ``vocabulary.toml``. What
NegEx lacks is here: clauses that end its scopes, places, and normal statements.

It needs the extra ``reports``; without it the import fails with a :class:`~cxrg.errors.UsageError`.
"""

from __future__ import annotations

from importlib.util import find_spec

from cxrg.errors import UsageError

# Looked for, not imported: spaCy takes seconds to load, and a program may never come to read text.
if find_spec("spacy") is None or find_spec("negspacy") is None:
    raise UsageError("reading report text needs spaCy and negspacy; pip install 'cxrg[reports]'")

from cxrg.reports.read import Reading, read, statements
from cxrg.reports.statement import Certainty, Side, Statement

__all__ = ["Certainty", "Reading", "Side", "Statement", "read", "statements"]
