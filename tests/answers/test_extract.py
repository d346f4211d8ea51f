import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.answers.choices import extract_choice
from mae_cli.answers.extract import Extraction, extract_answer, last_boxed
from mae_cli.answers.format import format_reward
from mae_cli.answers.questions import extract_question
from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.tags import count_tag_pairs

ANSWERS: list[tuple[str, str | None, str | None]] = [
    ("<answer>18</answer>", "18", "answer_tag"),
    ("<answer>3</answer> no: <ANSWER> 18 </Answer>", "18", "answer_tag"),
    ("In the <answer> tag: <answer>18</answer>", "18", "answer_tag"),
    ("<answer>\n**18**\n</answer>", "18", "answer_tag"),
    ("<answer>It is \\boxed{18}.</answer>", "18", "answer_tag"),
    ("\\boxed{3} <answer>18</answer> #### 4", "18", "answer_tag"),
    ("<answer>two lines\nhere</answer>", "two lines\nhere", "answer_tag"),
    ("<answer></answer> so \\boxed{18}", "18", "boxed"),
    ("so \\[ \\boxed{18} \\]", "18", "boxed"),
    ("\\boxed{3} then \\boxed{18}", "18", "boxed"),
    ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", "boxed"),
    ("\\boxed{\\left\\{1, 2\\right\\}}", "\\left\\{1, 2\\right\\}", "boxed"),
    ("\\boxed{\\boxed{18}}", "18", "boxed"),
    ("\\boxed {18}", "18", "boxed"),
    ("\\fbox{18}", "18", "boxed"),
    ("\\boxed{18} and then \\boxed{3", "18", "boxed"),
    ("work\n#### 18", "18", "hashes"),
    ("work\n#### $1,234.50\n\nHope this helps 9 times!", "$1,234.50", "hashes"),
    ("#### 3\n#### 18", "18", "hashes"),
    ("#### Step 1: add 3\nfine\n#### 18", "18", "hashes"),
    ("#### 18\n#### Step 2: check\nfine", "18", "hashes"),
    ("work\n#### x + 1", "x + 1", "hashes"),
    ("#### Step 1: add\nThe answer is 18.", "18", "phrase"),
    ("The answer is 18.", "18", "phrase"),
    ("the final answer is: 18", "18", "phrase"),
    ("**Final Answer:** $18", "$18", "phrase"),
    ("**Answer: 18**", "18", "phrase"),
    ("Answer: **18**.", "18", "phrase"),
    ("Answer:\n\n18", "18", "phrase"),
    ("The answer is 3.5 apples. There were 9.", "3.5 apples", "phrase"),
    ("The answer is 18 because she sells 9.", "18", "phrase"),
    ("The answer is 18, since 9 * 2 = 18.", "18", "phrase"),
    ("The answer is 3. Wait. The answer is 18.", "18", "phrase"),
    ("The answer is Mr. Smith. He said so.", "Mr. Smith", "phrase"),
    ("The answer is no. It is not.", "no", "phrase"),
    ("The answer is $\\frac{3}{4}$.", "$\\frac{3}{4}$", "phrase"),
    ("so 9 * 2 = 18 dollars.", "18", "last_number"),
    ("she earns $1,234.50.", "1,234.50", "last_number"),
    ("she earns \\$18", "18", "last_number"),
    ("16-3", "3", "last_number"),
    ("it is -3 degrees", "-3", "last_number"),
    ("it is \u22123 degrees", "\u22123", "last_number"),
    ("about 50%", "50%", "last_number"),
    ("leaves 3/4 of it", "3/4", "last_number"),
    ("leaves \\dfrac{3}{4} of it", "\\dfrac{3}{4}", "last_number"),
    ("half is .5 of it", ".5", "last_number"),
    ("6.02e23 of them", "6.02e23", "last_number"),
    ("1, 2 and 18", "18", "last_number"),
    ("18 in x2", "18", "last_number"),
    ("", None, None),
    ("   ", None, None),
    ("I do not know.", None, None),
    ("<answer></answer>", None, None),
    # Reasoning never reaches the answer.
    ("<think><answer>3</answer></think><answer>18</answer>", "18", "answer_tag"),
    ("<think>\\boxed{3}</think> so 18", "18", "last_number"),
    ("\\boxed{3}</think> so 18", "18", "last_number"),
    ("<think>the answer is 3", None, None),
    ("<answer>18</answer> <think>or 3", "18", "answer_tag"),
]


@pytest.mark.parametrize(("text", "answer", "source"), ANSWERS)
def test_answer_is_found_by_the_first_pattern_of_the_cascade(text: str, answer: str | None, source: str | None) -> None:
    assert extract_answer(text) == Extraction(answer, source)


@pytest.mark.parametrize(
    ("text", "answer", "source"),
    [
        ("<answer>B</answer>", "B", "answer_tag"),
        ("(A) <answer>(b)</answer>", "B", "answer_tag"),
        ("<answer>B. Paris</answer>", "B", "answer_tag"),
        ("<answer>\\boxed{B}</answer>", "B", "answer_tag"),
        ("<answer>Paris</answer>, not (A)", None, None),
        ("\\boxed{\\text{B}}", "B", "boxed"),
        ("The answer is (B).", "B", "phrase"),
        ("The answer is (b), not (A)", "B", "phrase"),
        ("the correct answer is: **B**", "B", "phrase"),
        ("Answer: B) Paris", "B", "phrase"),
        ("The answer is option B.", "B", "phrase"),
        ("The answer is B because (A) is too big.", "B", "phrase"),
        ("the answer is b.", "B", "phrase"),
        ("the answer is a dog", None, None),
        ("the answer is Apple", None, None),
        ("(A) is too big, so (B)", "B", "bracketed"),
        ("I choose [B]", "B", "bracketed"),
        ("B", "B", "lone_letter"),
        (" **b** ", "B", "lone_letter"),
        ("B. Paris", "B", "lone_letter"),
        ("It is Paris.\n\nB.", "B", "lone_letter"),
        ("A dog", None, None),
        ("(E)", None, None),
        ("", None, None),
        ("<think>(A)</think> (B)", "B", "bracketed"),
        ("<think>(A)", None, None),
    ],
)
def test_choice_is_the_label_that_the_text_settles_on(text: str, answer: str | None, source: str | None) -> None:
    assert extract_choice(text, ["A", "B", "C", "D"]) == Extraction(answer, source)


def test_choice_is_spelled_as_in_the_labels() -> None:
    assert extract_choice("(B)", ["a", "b"]).answer == "b"
    assert extract_choice("(10)", ["1", "10"]).answer == "10"
    assert extract_choice("(A)", []) == Extraction(None, None)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("<question>What is 2 + 2?</question>", "What is 2 + 2?"),
        ("<question>a</question> better: <Question>\n b\nc </QUESTION>", "b\nc"),
        ("<think><question>a</question></think><question>b</question>", "b"),
        ("<question>a</question><question> </question>", None),
        ("<question></question>", None),
        ("<question>cut off", None),
        ("<think><question>a</question>", None),
        ("What is 2 + 2?", None),
        ("", None),
    ],
)
def test_question_is_the_last_span_outside_reasoning(text: str, question: str | None) -> None:
    assert extract_question(text) == question


@pytest.mark.parametrize(
    ("text", "reasoning", "visible", "is_closed"),
    [
        ("plain", "", "plain", True),
        ("<think>a</think>b", "a", "\nb", True),
        ("a</think>b", "a", "b", True),
        ("b<think>a", "a", "b", False),
        ("x<think>a</think>y<thinking>b</thinking>z", "a\nb", "x\ny\nz", True),
        ("<think>a<thinking>b</think>c", "a<thinking>b", "\nc", True),
        ("<think>a</think>b</think>c", "a\n\nb", "c", True),
        ("", "", "", True),
    ],
)
def test_reasoning_is_split_off(text: str, reasoning: str, visible: str, is_closed: bool) -> None:
    split = split_named_reasoning(text)

    assert (split.reasoning, split.visible, split.is_closed) == (reasoning, visible, is_closed)


def test_reasoning_tags_are_configurable() -> None:
    assert split_named_reasoning("<plan>a</plan>b", ["plan"]).visible == "\nb"
    assert split_named_reasoning("<plan>a</plan>b").visible == "<plan>a</plan>b"


FORMATS: list[tuple[str, int, float, float, float]] = [
    # text, pairs, paper, code for solver and judge, code for proposer
    ("", 0, 0.0, 0.0, 0.0),
    ("no tags", 0, 0.0, 0.0, 0.0),
    ("<q>a</q>", 1, 1.0, 1.0, 1.0),
    ("text <Q>a</q > text", 1, 1.0, 1.0, 1.0),
    ("<q></q>", 1, 1.0, 1.0, 1.0),
    ("<q>a</q><q>b</q>", 2, 0.5, 0.5, 1.0),
    ("<q>a</q>" * 3, 3, 0.5, 0.5, 1.0),
    ("<q>a</q>" * 4, 4, 0.5, 0.5, 0.5),
    ("<q>a<q>b</q></q>", 2, 0.5, 0.5, 1.0),
    ("<q>a", 0, 0.0, 0.0, 0.0),
    ("a</q>", 0, 0.0, 0.0, 0.0),
    ("</q>a<q>", 0, 0.0, 0.0, 0.0),
    ("<q>a</q><q>", 1, 1.0, 0.0, 0.0),
    ("</q><q>a</q>", 1, 1.0, 0.0, 0.0),
    ("<q>a</q><q>b</q></q>", 2, 0.5, 0.0, 0.0),
    ("<other>a</other>", 0, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("text", "pairs", "paper", "code", "code_proposer"), FORMATS)
def test_format_reward_follows_both_published_rules(
    text: str, pairs: int, paper: float, code: float, code_proposer: float
) -> None:
    assert count_tag_pairs(text, "q") == pairs
    assert format_reward(text, "q", variant="paper") == paper
    assert format_reward(text, "q", variant="code") == code
    question = text.replace("q>", "question>").replace("q >", "question >").replace("Q", "Question")
    assert format_reward(question, "question", variant="paper") == paper
    assert format_reward(question, "question", variant="code") == code_proposer


def test_many_unclosed_boxes_take_no_time() -> None:
    assert last_boxed("\\boxed{" * 50_000) is None
    assert last_boxed("\\boxed{" * 50_000 + "1}") == "1"


MARKS = [
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "\\boxed{",
    "}",
    "{",
    "####",
    "(B)",
    "18",
    "1/2",
    "-",
    "$",
    "\n",
]
PIECES = st.lists(
    st.one_of(st.text(max_size=6), st.sampled_from([*MARKS, "I", "answer", "is", ":", "\u0131"])), max_size=16
).map(" ".join)


@given(PIECES)
def test_extraction_never_raises_and_names_its_source(text: str) -> None:
    found = extract_answer(text)
    choice = extract_choice(text, "ABCDEFGHI")

    assert (found.answer is None) == (found.source is None)
    assert found.answer is None or found.answer.strip()
    assert choice.answer is None or choice.answer in "ABCDEFGHI"


@given(PIECES)
def test_unclosed_reasoning_has_no_answer(text: str) -> None:
    assert extract_answer("<think>" + text.replace("</think>", "")) == Extraction(None, None)


@given(st.text(alphabet="ab {}\\", max_size=20))
def test_boxed_content_has_balanced_braces(text: str) -> None:
    found = last_boxed("\\boxed{" + text + "}")

    if found is not None:
        unescaped = found.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
        assert unescaped.count("{") == unescaped.count("}")


def test_a_latex_blank_is_no_end_of_a_sentence() -> None:
    assert extract_answer("The answer is $11,\\! 111$. Done.") == Extraction("$11,\\! 111$", "phrase")
