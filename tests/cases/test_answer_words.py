"""216 completions in the languages of MMLU's translations, read by us and by the first "answer word: letter" of a text.

That first match is how evaluations of the simple-evals kind read: a list of answer words, a colon, a letter. The words
below are the usual ones of each language. Each completion is made with the letter it states.
"""

from __future__ import annotations

import re
from itertools import product

from mae_cli.answers.choices import extract_choice

CITIES = ("Paris", "London", "Rome", "Berlin")
LABELS = "ABCD"
# Language: its answer word, a sentence that gives the answer, and a word of reasoning before it.
WORDS = {
    "en": ("Answer", "The correct answer is {x}.", "Let me think."),
    "de": ("Antwort", "Die richtige Antwort ist {x}.", "Ich denke nach."),
    "fr": ("Réponse", "La bonne réponse est {x}.", "Je réfléchis."),
    "es": ("Respuesta", "La respuesta correcta es {x}.", "Vamos a pensar."),
    "it": ("Risposta", "La risposta corretta è {x}.", "Ragioniamo."),
    "pt": ("Resposta", "A resposta correta é {x}.", "Vamos pensar."),
    "zh": ("答案", "正确答案是{x}。", "我们来分析。"),
    "ja": ("答え", "正解は{x}です。", "考えてみましょう。"),
    "ko": ("정답", "정답은 {x}입니다.", "생각해 봅시다."),
    "ar": ("الإجابة", "الإجابة الصحيحة هي {x}.", "لنفكر."),
    "hi": ("उत्तर", "सही उत्तर {x} है।", "सोचते हैं।"),
    "bn": ("উত্তর", "সঠিক উত্তর হল {x}।", "ভাবা যাক।"),
    "id": ("Jawaban", "Jawaban yang benar adalah {x}.", "Mari berpikir."),
    "sw": ("Jibu", "Jibu sahihi ni {x}.", "Tufikirie."),
    "yo": ("Ìdáhùn", "Ìdáhùn náà ni {x}.", "Ẹ jẹ́ kí a ronú."),
    "ru": ("Ответ", "Правильный ответ: {x}.", "Подумаем."),
    "tr": ("Cevap", "Doğru cevap {x}.", "Düşünelim."),
    "vi": ("Đáp án", "Đáp án đúng là {x}.", "Hãy suy nghĩ."),
}
LAYOUTS = {
    "word and colon": "{think}\n\n{word}: {x}",
    "wide colon and brackets": "{word}：（{x}）",
    "bold": "{think}\n**{word}: {x}**",
    "bold word": "**{word}:** {x}",
    "bold letter": "{think}\n{word}: **{x}**",
    "with its text": "{word}: {x}. {text}",
    "sentence": "{think} {sentence}",
    "sentence, brackets": "{think} {bracketed}",
    "word alone on its line": "{word}:\n\n{word}: {x}",
    "corrected": "{word}: {other}\n\n{think}\n\n{word}: {x}",
    "sentence, then another letter": "{sentence}\n\n({other}) {other_text}: no.",
    "run on": "{word}: {x}\n\nQuestion: another one\n{word}: {other}",
}
# What the first match of word, colon and letter reads otherwise, or not at all.
OTHERWISE = {
    "wide colon and brackets": "no letter directly behind the colon",
    "bold word": "a mark stands between colon and letter",
    "bold letter": "a mark stands between colon and letter",
    "sentence": "no colon",
    "sentence, brackets": "no colon",
    "sentence, then another letter": "no colon",
    "corrected": "the first letter counts there, here the last one that is stated",
}


def made() -> list[tuple[str, str, str, str]]:
    """(language, layout, completion, stated letter)."""
    found = []
    for index, (language, layout) in enumerate(product(WORDS, LAYOUTS)):
        word, sentence, think = WORDS[language]
        place, other = index % 4, (index + 1 + index // 4 % 3) % 4
        values = {"x": LABELS[place], "other": LABELS[other], "text": CITIES[place], "other_text": CITIES[other]}
        said = {"sentence": sentence.format(**values), "bracketed": sentence.format(x=f"({LABELS[place]})")}
        text = LAYOUTS[layout].format(word=word, think=think, **said, **values)
        found.append((language, layout, text, LABELS[place]))
    return found


def first_behind_colon(language: str, text: str) -> str | None:
    found = re.search(rf"(?i){WORDS[language][0]}[ \t]*[:\uff1a][ \t]*([A-D])", text)
    return found[1].upper() if found else None


def test_more_than_two_hundred_completions_in_eighteen_languages_are_read() -> None:
    read = [(text, letter, extract_choice(text, LABELS, CITIES).answer) for _, _, text, letter in made()]

    assert len(read) >= 200
    assert [one for one in read if one[1] != one[2]] == []


def test_the_first_word_colon_letter_reads_otherwise_where_the_list_says_so() -> None:
    lost = {layout for language, layout, text, letter in made() if first_behind_colon(language, text) != letter}

    assert lost == OTHERWISE.keys()
