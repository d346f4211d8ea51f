"""Column names of published problem sets: one table of what each name means, and the look-up in a row.

Place in the flow: `records.problems` finds a row's question, passage, choices and answer by these names. Contract:
names are compared without case, blanks and underscores ("Correct Answer" is `correct_answer`); of several names that a
row has, the first in the table counts. Left out: what the values mean (`problem_answers`, `problem_choices`,
`problem_tests`).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

QUESTION_KEYS = (
    *("question", "problem", "problem_description", "prompt", "query", "input", "inputs", "instruction"),
    *("question_stem", "question_content", "problem_statement", "user_prompt", "instruct_prompt", "complete_prompt"),
    *("sentence", "ctx", "goal", "premise"),  # Winogrande, HellaSwag, PIQA, COPA
    *("sQuestion", "question_text", "description"),  # MAWPS, CodeContests
    "messages",
)
"""What is asked; the first that a row has."""
TEXT_KEY = "text"
"""The question of the full MBPP file; elsewhere a text to go on with, so it counts only beside tests or choices."""
SPECIFICATION_KEYS = ("input_format", "output_format", "interaction_format")
"""Parts of a programming task that stand behind its `description` (Codeforces)."""
PASSAGE_KEYS = {
    **dict.fromkeys(("passage", "article", "context", "paragraph", "flores_passage", "narrative", "story"), "\n\n"),
    "body": " ",  # SVAMP and ASDiv: the first sentences of one text
}
"""What a question is about, and what stands between the two."""
MATERIAL_KEYS = ("input", "context")
"""What an `instruction` is to be carried out on (Alpaca, Dolly)."""
ANSWER_KEYS = (
    # What is called the truth comes before a plain `answer`, which may be what a model said.
    *("reference_answer", "ground_truth", "ground_truths", "expected_answer", "gold_answer", "final_answer"),
    *("answer_number", "final_ans", "final_decision"),  # MGSM, MultiArith, PubMedQA: beside a longer `answer`
    *("answer", "target", "answerKey", "label", "gold", "output"),
    *("correct_answer", "correct", "correct_option", "correct_answer_num", "correct_choice", "answer_idx"),
    *("answer_index", "cop", "answer_right_ending", "best_answer", "ideal", "targets", "answers", "answers_spans"),
    *("lSolutions", "result", "possible_answers", "correct_answers", "answer_text", "correct_answer_id"),
)
"""The right answer; the first that a row has."""
ALTERNATIVE_KEYS = frozenset(
    {
        *("target", "targets", "ideal", "answers", "ground_truth", "ground_truths", "gold_answer"),
        *("possible_answers", "correct_answers"),
    }
)
"""Answers whose list holds several wordings of one answer; any other list is one answer of several parts."""
SOLUTION_KEYS = ("solution", "rationale", "worked_solution", "generated_solution", "response")
"""Where the answer is looked for when no column has it: in a box, behind four hashes, in an answer tag."""
CHOICE_KEYS = ("choices", "options", "endings", "answer_choices")
"""Lists of choices."""


class ChoiceColumns(msgspec.Struct, frozen=True):
    """Choices that stand in columns of their own."""

    columns: tuple[str, ...]
    """In order; a row has at least the first two."""
    first: int = 0
    """The number of the first choice in a numeric answer, where the answers of the file do not show it."""
    exact: bool = False
    """Whether the spelling counts: `A` is a choice, `a` may be anything."""


CHOICE_COLUMNS = (
    ChoiceColumns(tuple("ABCDEFGHIJ"), first=1, exact=True),  # KMMLU; CMMLU and C-Eval answer with letters
    ChoiceColumns(("option1", "option2", "option3", "option4", "option5"), first=1),  # Winogrande
    ChoiceColumns(("sol1", "sol2")),  # PIQA
    ChoiceColumns(("choice1", "choice2", "choice3", "choice4")),  # COPA
    ChoiceColumns(("answer0", "answer1", "answer2", "answer3")),  # CosmosQA
    ChoiceColumns(("answerA", "answerB", "answerC", "answerD"), first=1),  # Social IQa
    ChoiceColumns(("option_a", "option_b", "option_c", "option_d", "option_e")),  # Global-MMLU
    ChoiceColumns(("opa", "opb", "opc", "opd")),  # MedMCQA
    ChoiceColumns(("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4"), first=1),  # Belebele
    ChoiceColumns(("sentence_quiz1", "sentence_quiz2"), first=1),  # StoryCloze
)
SCORED_CHOICES = ("target_scores", "mc1_targets")
"""Objects of a text to 1 or 0 (BIG-bench, TruthfulQA)."""
REWARD_KEYS = ("reward_model", "verification_info")
"""Objects that hold `ground_truth` (verl; SYNTHETIC-1)."""
WRONG_CHOICE_COLUMNS = (
    ("incorrect_answer_1", "incorrect_answer_2", "incorrect_answer_3"),  # GPQA
    ("distractor1", "distractor2", "distractor3"),  # SciQ
)
"""Columns with wrong choices beside the right one in `correct_answer`; the set says nothing about their order."""
UNDERSTOOD = frozenset(
    {
        *("tests", "test", "test_list", "test_setup_code", "test_imports", "entry_point", "starter_code"),
        *("input_output", "time_limit", "choices", "choice_labels", "schema", "json_schema"),
    }
)
"""Columns that stay in `meta` because a verifier reads them there."""


def column_key(name: str) -> str:
    """Return a column's name without case, blanks and marks."""
    return re.sub(r"[\W_]+", "", name).casefold()


class Columns:
    """A row's values by the names of the table.

    Attributes:
        left: what nobody has taken yet, by its own name.
        read: names of columns that were read and stay all the same.
    """

    def __init__(self, tree: dict[str, Any]) -> None:
        self.left = dict(tree)
        self.read: set[str] = set()
        self._spelt: dict[str, str] = {}
        for name in tree:
            self._spelt.setdefault(column_key(name), name)

    def own_name(self, name: str, *, exact: bool = False) -> str | None:
        """Return how the row spells a name; null where it has no such column or its value is empty."""
        found = name if name in self.left or exact else self._spelt.get(column_key(name))
        return found if found is not None and not is_blank(self.left.get(found)) else None

    def first(self, names: tuple[str, ...]) -> str | None:
        """Return the row's own spelling of the first name that it has a value for."""
        return next((found for name in names if (found := self.own_name(name)) is not None), None)

    def get(self, name: str) -> Any:
        """Return the value of a column; null where there is none."""
        found = self.own_name(name)
        return self.left[found] if found is not None else None

    def take(self, name: str) -> Any:
        """Return the value of a column and take it out."""
        found = self.own_name(name)
        return self.left.pop(found) if found is not None else None

    def drop_blank(self, name: str) -> None:
        """Take out a column that is there without a value."""
        found = name if name in self.left else self._spelt.get(column_key(name))
        if found is not None and is_blank(self.left.get(found)):
            self.left.pop(found, None)


def is_blank(value: Any) -> bool:
    """Whether a cell says nothing: null, or text of white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def at_path(tree: Any, path: str) -> tuple[bool, Any]:
    """(whether it is there, value) of a column, or of a dotted path into one (`reward_model.ground_truth`)."""
    if isinstance(tree, dict) and path in tree:
        return True, tree[path]
    head, dot, rest = path.partition(".")
    if not dot or not isinstance(tree, dict) or head not in tree:
        return False, None
    return at_path(tree[head], rest)
