"""Preferences are encoded as TRL does it; what does not fit is counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jobs
import pyarrow
import pytest
import tiny
from pairs import BAD, CHAT, FORMATS, GOOD, MARK, SYSTEM, URI, USER, changes

from llmtrain_api.errors import ConfigError, DataError
from llmtrain_trainer.data import preferences
from llmtrain_trainer.data.preferences import Encoder
from llmtrain_trainer.data.rows import Judged, Pair, Row
from llmtrain_trainer.data.tokens import Account
from llmtrain_trainer.workdir import JOB, Job


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def row_of(content: Pair | Judged) -> Row:
    return Row(f"{URI}, line 7", False, content)


PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("content", "prompt", "answers"),
    [
        pytest.param(
            Pair([USER], [GOOD], [BAD]),
            PROMPT,
            ["ho<|im_end|>\n", "go away<|im_end|>\n"],
            id="messages: the template begins the answer, and the end of turn is trained",
        ),
        pytest.param(
            Pair([USER], [GOOD, USER, BAD], [BAD]),
            PROMPT,
            [f"ho<|im_end|>\n{PROMPT}go away<|im_end|>\n", "go away<|im_end|>\n"],
            id="an answer of several turns",
        ),
        pytest.param(
            Judged([SYSTEM, USER], [GOOD], good=True),
            f"<|im_start|>system\nbe brief<|im_end|>\n{PROMPT}",
            ["ho<|im_end|>\n"],
            id="one answer",
        ),
        pytest.param(
            Pair("2 + 2 =", " 4", " 5"),
            "2 + 2 =",
            [" 4<|im_end|>", " 5<|im_end|>"],
            id="texts: the end-of-sequence token is added",
        ),
        pytest.param(
            Pair("2 + 2 =", " 4<|im_end|>", ""),
            "2 + 2 =",
            [" 4<|im_end|>", "<|im_end|>"],
            id="an end that is there already, and an empty answer",
        ),
        pytest.param(
            Pair("🙂 = ", "🙃", "🙂"),
            "🙂 = ",
            ["🙃<|im_end|>", "🙂<|im_end|>"],
            id="characters of several tokens",
        ),
    ],
)
def test_prompts_and_answers_are_told_apart(
    content: Pair | Judged, prompt: str, answers: Sequence[str], tokenizer: Any
) -> None:
    ((prompt_ids, answer_ids),) = Encoder(tokenizer).answers([row_of(content)])
    assert tokenizer.decode(prompt_ids) == prompt
    assert [tokenizer.decode(ids) for ids in answer_ids] == list(answers)


@pytest.mark.torch
def test_an_answer_begins_where_the_tokens_differ(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer)
    ((prompt, answers),) = encoder.answers([row_of(Pair("Sort thes", "e", "x"))])
    whole = [tokenizer.decode([*prompt, *answer]) for answer in answers]
    assert whole == ["Sort these<|im_end|>", "Sort thesx<|im_end|>"]
    assert len(prompt) < len(tokenizer("Sort thes")["input_ids"])
    assert encoder.moved == 1


@pytest.mark.torch
def test_what_the_tokenizer_puts_before_a_text_is_not_put_before_a_rendered_chat(
    tiny_model: Path,
) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    begin = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.convert_tokens_to_ids(begin))]
    )
    batch = [row_of(Pair("a", "b", "c")), row_of(Pair([USER], [GOOD], [BAD]))]
    prompts = [tokenizer.decode(prompt) for prompt, _ in Encoder(tokenizer).answers(batch)]
    assert prompts == [f"{begin}a", PROMPT]


@pytest.mark.torch
def test_texts_and_messages_may_stand_side_by_side(tokenizer: Any) -> None:
    batch = [row_of(Pair("a", "b", "c")), row_of(Pair([USER], [GOOD], [BAD]))]
    first, second = Encoder(tokenizer).conversations([*batch, batch[0]])[1:]
    assert tokenizer.decode(first[0]) == f"{PROMPT}ho<|im_end|>\n"
    assert [tokenizer.decode(ids) for ids in second] == ["ab<|im_end|>", "ac<|im_end|>"]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("lacks", "content", "message"),
    [
        pytest.param(
            "chat_template",
            Pair([USER], [GOOD], [BAD]),
            "its tokenizer has no chat template, and s3://data/rows.jsonl, line 7 has messages",
            id="a chat template",
        ),
        pytest.param(
            "eos_token",
            Pair("a", "b", "c"),
            "its tokenizer has no end-of-sequence token, so no answer could end",
            id="an end-of-sequence token",
        ),
    ],
)
def test_a_tokenizer_that_lacks_what_the_rows_need(
    lacks: str, content: Pair, message: str, tiny_model: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    setattr(tokenizer, lacks, None)
    with pytest.raises(ConfigError) as error:
        Encoder(tokenizer).answers([row_of(content)])
    assert message in str(error.value)


@pytest.mark.torch
def test_a_row_that_the_template_refuses_is_named(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{{ raise_exception('no thanks') }}"
    with pytest.raises(DataError, match="line 7: the model's chat template refuses it"):
        Encoder(tokenizer).answers([row_of(Pair([USER], [GOOD], [BAD]))])


LONG = [{"role": "assistant", "content": "red " * 40}]
VERY_LONG = [{"role": "user", "content": "red " * 40}]


def prepare(
    stage: str, model: Path, folder: Path, data: Sequence[Any], more: Mapping[str, Any]
) -> tuple[Account, list[dict[str, Any]]]:
    """Returns the account of `data`, and the rows that were written to train on."""
    from transformers import AutoTokenizer

    jobs.write_job(folder, model, changes(stage, **more), data=[list(data)])
    job = Job.model_validate_json((folder / JOB).read_bytes())
    write = preferences.prepare_conversations if stage == "Reward" else preferences.prepare_answers
    account = write(job, AutoTokenizer.from_pretrained(model), folder / "tokens")
    with (folder / "tokens" / "train.arrow").open("rb") as file:
        return account, pyarrow.ipc.open_stream(file).read_all().to_pylist()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("stage", "data", "expected"),
    [
        pytest.param(
            "DPO",
            [CHAT, {**CHAT, "chosen": LONG}, {**CHAT, "prompt": VERY_LONG}],
            {"rows": 3, "train": 2, "truncated": 2, "dropped": 1},
            id="DPO cuts an answer, and drops a prompt that leaves no room for one",
        ),
        pytest.param(
            "KTO",
            [MARK, {**MARK, "completion": LONG}, {**MARK, "prompt": VERY_LONG}],
            {"rows": 3, "train": 2, "truncated": 2, "dropped": 1},
            id="KTO does the same",
        ),
        pytest.param(
            "Reward",
            [CHAT, {**CHAT, "rejected": LONG}, {**CHAT, "prompt": VERY_LONG}],
            {"rows": 3, "train": 1, "truncated": 0, "dropped": 2, "trained_tokens": 2},
            id="Reward drops what is too long: cut, it would lose its end",
        ),
    ],
)
def test_what_does_not_fit_is_counted(
    stage: str, data: Sequence[Any], expected: dict[str, int], tiny_model: Path, tmp_path: Path
) -> None:
    account, written = prepare(stage, tiny_model, tmp_path, data, {"training.maxLength": 32})
    assert {name: account.total(name) for name in expected} == expected
    assert len(written) == expected["train"]
    lengths = [
        len(row.get("prompt_ids", [])) + len(row[name])
        for row in written
        for name in row.keys() - {"prompt_ids", "label"}
    ]
    assert max(lengths) <= 32
    assert account.total("tokens") == sum(lengths)
    assert account.largest_id == max(
        token for row in written for name in row.keys() - {"label"} for token in row[name]
    )


@pytest.mark.torch
def test_nothing_left_is_told(tiny_model: Path, tmp_path: Path) -> None:
    data = [{**CHAT, "chosen": LONG}]
    with pytest.raises(DataError, match=r"of 1 rows 1 are longer than training\.maxLength \(32\)"):
        prepare("Reward", tiny_model, tmp_path, data, {"training.maxLength": 32})


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["messages", "texts"])
@pytest.mark.parametrize("stage", FORMATS)
def test_the_tokens_are_those_of_trl(
    stage: str, kind: str, tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    from datasets import Dataset

    data = tiny.judged_rows(20) if stage == "KTO" else tiny.preference_rows(20)
    if kind == "texts":
        data = [
            {
                name: value if isinstance(value, bool) else value[0]["content"]
                for name, value in row.items()
            }
            for row in data
        ]
    _, ours = prepare(stage, tiny_model, tmp_path, data, {"training.maxLength": 48})
    theirs = encode_with_trl(stage, Dataset.from_list(json.loads(json.dumps(data))), tokenizer)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        for name, value in one.items():
            if name == "label" or name == "prompt_ids":
                assert value == other[name]
            else:  # TRL cuts answers only when it makes a batch of them.
                room = 48 - len(one.get("prompt_ids", []))
                assert value == other[name][:room]


def encode_with_trl(stage: str, dataset: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """Returns the rows as the trainer of TRL encodes them."""
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_trainer import KTOTrainer
    from trl.trainer.reward_trainer import RewardTrainer

    trainer: Any = {"DPO": DPOTrainer, "KTO": KTOTrainer, "Reward": RewardTrainer}[stage]
    stand_in = SimpleNamespace(
        _tokenizer=tokenizer, calculate_KL=False, desirable_weight=1, undesirable_weight=1
    )
    args = SimpleNamespace(max_length=48, truncation_mode="keep_start", dataset_num_proc=None)
    encoded = trainer._prepare_dataset(stand_in, dataset, tokenizer, args, "train")
    found: list[dict[str, Any]] = encoded.to_list()
    return found
