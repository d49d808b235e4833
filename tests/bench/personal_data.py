"""Personal data in English and Chinese texts: recall, precision and speed by kind; jieba beside."""

from __future__ import annotations

import time
from collections.abc import Sequence

from modeling.core.personal_data import ALL_KINDS, ASKED_FOR, KINDS, find
from modeling.packs.samples.bank import bank_messages
from modeling.packs.samples.clinic import clinic_rows
from tests.core.personal_scores import everything, scored
from tests.core.personal_sentences import HELD_OUT, SEEN, Corpus

SENTENCES = 600  # of each register, language and corpus
LANGUAGES = {"en": "English", "zh": "Chinese"}


def texts_of(corpus: Corpus, language: str) -> tuple[list[str], int]:
    """Planted sentences between harmless ones, as notes have them; and their bytes in UTF-8."""
    clean = list(corpus.clean[language])
    sentences = corpus.sentences(language, SENTENCES)
    notes = [
        " ".join((*(clean[(at * 5 + by) % len(clean)] for by in range(4)), one.text))
        for at, one in enumerate(sentences)
    ]
    return notes, sum(len(note.encode()) for note in notes)


def speed(texts: Sequence[str], kinds: Sequence[str]) -> float:
    """Megabytes of UTF-8 a CPU second."""
    size = sum(len(text.encode()) for text in texts)
    started = time.process_time()
    for text in texts:
        find(text, kinds=kinds)
    return size / 1e6 / (time.process_time() - started)


def print_recall() -> None:
    """A table by kind: seen and held-out sentences of both languages."""
    print(
        f"{'kind':14}{'language':10}{'corpus':10}{'planted':>9}{'covered':>9}{'named':>8}{'precision':>11}{'MB/s':>8}"
    )
    for language, words in LANGUAGES.items():
        for name, corpus in (("seen", SEEN), ("held out", HELD_OUT)):
            found = scored(corpus.sentences(language, SENTENCES), corpus.clean[language])
            notes, _ = texts_of(corpus, language)
            for kind in ALL_KINDS:
                one = found[kind]
                if one.planted:
                    print(
                        f"{kind:14}{words:10}{name:10}{one.planted:9,}{one.recall:9.3f}{one.named / one.planted:8.3f}"
                        f"{one.precision:11.3f}{speed(notes, (kind,)):8.1f}"
                    )


def print_speed() -> None:
    """Megabytes a second of the tiers, on notes and on the demo's texts."""
    rows = {f"notes, {words}": texts_of(SEEN, language)[0] for language, words in LANGUAGES.items()}
    rows["messages of the bank sample"] = [text for row in bank_messages() for text in row][:12_000]
    rows["descriptions of the clinic sample"] = [text for text, _ in clinic_rows()][:20_000]
    tiers = {"by shape": KINDS, "dates": ("date",), "names": ("name",), "everything": ALL_KINDS}
    print(
        f"\n{'MB of UTF-8 a CPU second, one core':38}"
        + "".join(f"{name:>12}" for name in tiers)
        + f"{'asked':>8}"
    )
    for name, texts in rows.items():
        print(
            f"{name:38}" + "".join(f"{speed(texts, kinds):12.1f}" for kinds in tiers.values()) + f"{'5':>8}"
        )


def print_false_alarms() -> None:
    """What is taken for a name or a date in texts without people."""
    texts = [text for text, _ in clinic_rows()]
    wrong = [found for text in texts for found in find(text, kinds=ASKED_FOR)]
    print(
        f"\nnames and dates found in {len(texts):,} descriptions of diagnoses, which have none: {len(wrong):,}"
    )


def print_jieba() -> None:
    """The words that jieba's own tags call people, where it is installed, on the Chinese sentences."""
    try:
        import jieba.posseg as tagged
    except ImportError:
        print(
            "\njieba is not installed: `pip install jieba` to compare with its tags (1/20 of rjieba's speed)."
        )
        return
    from modeling.core.personal_data import Found

    def finder(text: str) -> list[Found]:
        found, at = [], 0
        for word in tagged.cut(text):
            if word.flag.startswith("nr"):
                found.append(Found("name", at, at + len(word.word)))
            at += len(word.word)
        return found

    for name, corpus in (("seen", SEEN), ("held out", HELD_OUT)):
        texts, size = [one.text for one in corpus.sentences("zh", 200)], 0
        started = time.process_time()
        score = scored(corpus.sentences("zh", 200), corpus.clean["zh"], finder)["name"]
        seconds = time.process_time() - started
        size = sum(len(text.encode()) for text in texts)
        speed_of = size / 1e6 / seconds
        print(
            f"\njieba's tags alone, {name}: recall {score.recall:.3f}, precision {score.precision:.3f}, {speed_of:.2f}"
        )


def main() -> None:
    """Runs in about a minute."""
    everything("Anna 张伟 12")  # lists and words are read before anything is timed
    print_recall()
    print_speed()
    print_false_alarms()
    print_jieba()


if __name__ == "__main__":
    main()
