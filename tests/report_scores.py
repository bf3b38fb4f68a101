"""Precision and recall of ``cxrg.reports`` on hand-labelled sentences and on phantom English.

python -m tests.report_scores [--errors] [--sentences 5000]
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrg.phantom import language
from cxrg.phantom.grammar import Query
from cxrg.reports import statements

DATA = Path(__file__).parent / "data"
PARTS = ("dev", "held_out", "hard", "final", "rough", "blind")
CERTAINTIES = ("present", "absent", "uncertain", "normal")
# Names that the phantom's language has common words for ("infiltrate" is also an opacity).
HAZE = {"opacity", "consolidation", "ground-glass opacity", "infiltrate", "pneumonia"}
Label = tuple[str | None, str | None, str | None, str]


@dataclass(frozen=True)
class Score:
    """Counts over sentences: labels found, labels, statements made."""

    right: int
    expected: int
    made: int

    @property
    def precision(self) -> float:
        return self.right / self.made if self.made else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.expected if self.expected else 1.0


def labelled(part: str) -> list[dict[str, Any]]:
    """The sentences of one of :data:`PARTS`."""
    text = (DATA / f"report_sentences_{part}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def read(text: str) -> list[Label]:
    """The statements of a text as labels."""
    return [(s.finding, s.side, s.zone, s.certainty) for s in statements(text)]


def scores(part: str, key: Callable[[Label], Any]) -> dict[str, Score]:
    """Score by certainty and over ``all``; ``key`` says what of a label is compared."""
    right: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    made: Counter[str] = Counter()
    for entry in labelled(part):
        wanted = Counter((key(_label(row)), row[3]) for row in entry["expect"])
        given = Counter((key(label), label[3]) for label in read(entry["text"]))
        for counts, found in ((right, wanted & given), (expected, wanted), (made, given)):
            for (_, certainty), count in found.items():
                counts[certainty] += count
                counts["all"] += count
    return {name: Score(right[name], expected[name], made[name]) for name in (*CERTAINTIES, "all")}


def whole(label: Label) -> Label:
    """Finding, side, zone and certainty."""
    return label


def what(label: Label) -> tuple[str | None, str]:
    """Finding and certainty alone."""
    return label[0], label[3]


def errors(part: str) -> Iterable[tuple[str, list[Label], list[Label]]]:
    """Texts that are not read as labelled, with what is missing and what is too much."""
    for entry in labelled(part):
        wanted, given = Counter(map(_label, entry["expect"])), Counter(read(entry["text"]))
        if wanted != given:
            yield (
                entry["text"],
                list((wanted - given).elements()),
                list((given - wanted).elements()),
            )


def phantom(count: int, seed: int = 0) -> dict[str, Any]:
    """Read what the phantom's grammar says about random queries.

    A query is given back if one statement has its finding, side and zone, and is absent exactly if
    the query is not present. ``names`` counts names that share words as one (:data:`HAZE`).
    ``contradicted`` are queries that some statement about their finding and place denies.
    """
    rng = random.Random(seed)
    kinds = {*language.concepts("finding"), *language.concepts("device")}
    queries = [query for query in language.queries() if query.concept in kinds]
    tallies: dict[str, Counter[str]] = {"present": Counter(), "absent": Counter()}
    misses: list[tuple[Query, str, list[Label]]] = []
    for _ in range(count):
        query = rng.choice(queries)
        if rng.random() < 0.3:
            query = Query(query.concept, query.side, query.zone, present=False)
        text = (language.say if rng.random() < 0.5 else language.sentence)(query, rng)
        given = read(text)
        tally = tallies["present" if query.present else "absent"]
        tally["texts"] += 1
        exact = [label for label in given if label[0] == query.concept and _fits(label, query)]
        kin = [label for label in given if _kin(label[0], query.concept) and _fits(label, query)]
        tally["exact"] += bool(exact)
        tally["names"] += bool(kin)
        tally["contradicted"] += any(
            _kin(label[0], query.concept) and (label[3] == "absent") == query.present
            for label in given
        )
        if not kin:
            misses.append((query, text, given))
    return {**{name: dict(tally) for name, tally in tallies.items()}, "misses": misses}


def normal_phrases(count: int, seed: int = 0) -> float:
    """Share of the phantom's normal texts that give normal statements alone."""
    rng = random.Random(seed)
    texts = [language.normal(rng) for _ in range(count)]
    return sum(_all_normal(read(text)) for text in texts) / count


def _all_normal(given: list[Label]) -> bool:
    return bool(given) and all(label[3] in ("normal", "absent") for label in given)


def _fits(label: Label, query: Query) -> bool:
    certainties = ("present", "uncertain") if query.present else ("absent",)
    return label[1:3] == (query.side, query.zone) and label[3] in certainties


def _kin(one: str | None, other: str) -> bool:
    return one == other or (one in HAZE and other in HAZE)


def _label(row: list[Any]) -> Label:
    finding, side, zone, certainty = row
    return finding, side, zone, certainty


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--errors", action="store_true", help="print what is misread")
    parser.add_argument("--parts", nargs="*", default=PARTS)
    parser.add_argument("--sentences", type=int, default=5000, help="of the phantom's grammar")
    options = parser.parse_args()
    for part in options.parts:
        print(f"\n{part}: {len(labelled(part))} texts")
        print(f"  {'':<12}{'finding, side, zone, certainty':<34}finding, certainty")
        tables = scores(part, whole), scores(part, what)
        for name in (*CERTAINTIES, "all"):
            cells = [
                f"P {t[name].precision:.3f}  R {t[name].recall:.3f}  n {t[name].expected:<5}"
                for t in tables
            ]
            print(f"  {name:<12}{cells[0]:<34}{cells[1]}")
        for text, missing, extra in errors(part) if options.errors else ():
            print(f"  {text!r}\n    missing {missing}\n    extra   {extra}")
    if options.sentences:
        print(f"\nphantom grammar, {options.sentences} texts of findings and devices")
        result = phantom(options.sentences)
        for name in ("present", "absent"):
            tally = result[name]
            rates = "  ".join(
                f"{k} {tally[k] / tally['texts']:.3f}" for k in ("exact", "names", "contradicted")
            )
            print(f"  {name:<12}n {tally['texts']:<6}{rates}")
        print(f"  normal      {normal_phrases(1000):.3f}")
        for query, text, given in result["misses"][:60] if options.errors else ():
            print(f"  {query}\n    {text!r}\n    {given}")


if __name__ == "__main__":
    _main()
