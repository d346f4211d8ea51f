"""Chat templates in the manner of published families, with the token that ends an assistant's turn in each."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """A template, the special tokens it needs, and what ends its answers."""

    template: str
    specials: tuple[str, ...]
    end: str
    ends: tuple[str, ...] = ()
    """Tokens at which the model itself stops (generation_config)."""


def _turns(head: str, tail: str, generation: str, *, first: str = "") -> str:
    return (
        first
        + "{% for m in messages %}"
        + head
        + "{{ m['content'] }}"
        + tail
        + "{% endfor %}{% if add_generation_prompt %}"
        + generation
        + "{% endif %}"
    )


_ROLE = "{{ m['role'] }}"
FAMILIES = {
    "chatml": Family(
        _turns("<|im_start|>" + _ROLE + "\n", "<|im_end|>\n", "<|im_start|>assistant\n"), (), "<|im_end|>"
    ),
    "gemma": Family(
        _turns(
            "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n",
            "<end_of_turn>\n",
            "<start_of_turn>model\n",
            first="{{ bos_token }}",
        ).replace("m['content']", "m['content'] | trim"),
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
    ),
    "phi3": Family(
        _turns("<|" + _ROLE + "|>\n", "<|end|>\n", "<|assistant|>\n")
        + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}",
        ("<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
    ),
    "llama3": Family(
        _turns(
            "<|start_header_id|>" + _ROLE + "<|end_header_id|>\n\n",
            "<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            first="{{ bos_token }}",
        ),
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
        "<|eot_id|>",
    ),
    "cohere": Family(
        _turns(
            "<|START_OF_TURN_TOKEN|><|{{ 'CHATBOT' if m['role'] == 'assistant' else 'USER' }}_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ),
        ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|USER_TOKEN|>"),
        "<|END_OF_TURN_TOKEN|>",
    ),
    "deepseek": Family(
        "{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}{% else %}<｜Assistant｜>"
        "{{ m['content'].split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
        ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        "<｜end▁of▁sentence｜>",
    ),
    "harmony": Family(
        "{% for m in messages %}<|start|>{{ m['role'] }}{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}"
        "<|message|>{{ m['content'] }}{% if loop.last and m['role'] == 'assistant' %}<|return|>"
        "{% else %}<|end|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        ("<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|end|>", "<|call|>"),
        "<|return|>",
    ),
    "glm4": Family(
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        ("<|user|>", "<|assistant|>"),
        "<|user|>",
        ("<|user|>", "<|endoftext|>"),
    ),
    "no_end_at_all": Family(
        "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}",
        (),
        "<|endoftext|>",
    ),
    "mistral": Family(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}",
        (),
        "<|endoftext|>",
    ),
    "zephyr": Family(
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        (),
        "<|endoftext|>",
    ),
    "head_always_written": Family(
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|over|>{% endfor %}<|assistant|>",
        ("<|user|>", "<|assistant|>", "<|over|>"),
        "<|over|>",
    ),
    "head_always_and_no_end": Family(
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}<|assistant|>",
        ("<|user|>", "<|assistant|>"),
        "<|endoftext|>",
    ),
    "qwen3": Family(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last "
        "and '<think>' not in m['content'] %}<think>\n\n</think>\n\n{% endif %}"
        "{% if not loop.last and m['role'] == 'assistant' %}{{ m['content'].split('</think>')[-1].lstrip('\n') }}"
        "{% else %}{{ m['content'] }}{% endif %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        (),
        "<|im_end|>",
    ),
    "loop_controls": Family(
        "{% for m in messages %}{% if not m['content'] %}{% continue %}{% endif %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}"
        "{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        (),
        "<|im_end|>",
    ),
    "first_turn_has_a_date": Family(
        "{{ strftime_now('%d %b %Y') }}{% macro turn(m) %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endmacro %}{% for m in messages %}{{ turn(m) }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        (),
        "<|im_end|>",
    ),
}
