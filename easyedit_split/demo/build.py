"""Build the demo model from nothing: tokenizer, a Qwen2 of 0.76 million parameters, a few minutes of training.

``python -m easyedit_split.demo.build [--out DIR] [--steps N] [--seed S]``. The same seed on the same machine
with the same number of threads gives the same weights, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from . import FOLDER, model_path
from .world import Example, corpus, write_data

STEPS = 3000
SEED = 2
BATCH = 32
PEAK_LR = 3e-3
WARMUP = 100
VOCABULARY = 1024
CONTEXT = 2048
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
IGNORED = -100


def make_tokenizer(texts: list[str]) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer trained on `texts`, in the form that Qwen2 folders are read back in.

    All 256 bytes are in the vocabulary, so that any text can be read (normalised to NFC, as Qwen2 does).
    """
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    state = json.loads(raw.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=state["vocab"],
        merges=[tuple(merge) for merge in state["merges"]],  # type: ignore[misc]
        unk_token=PAD,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
    )


def make_model(tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """The untrained demo model, drawn from torch's current random state."""
    end, pad = (tokenizer.encode(text)[0] for text in (END, PAD))
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    return Qwen2ForCausalLM(config).float()


def encode(tokenizer: Qwen2Tokenizer, example: Example) -> tuple[list[int], list[int]]:
    """Token ids of the rendered prompt, and of the answer with the end-of-turn token."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": example.question}], tokenize=False, add_generation_prompt=True
    )
    # without the answer's leading space, as `tokens.Encoder` scores it: the template ends where the answer begins
    texts = (prompt, example.answer.lstrip(" ") + END)
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    return encoded[0], encoded[1]


Batch = tuple[torch.Tensor, torch.Tensor]


def batches(encoded: list[tuple[list[int], list[int]]], pad: int, rng: random.Random) -> Iterator[Batch]:
    """Endless batches of near-equal length, padded on the right: input ids and labels, each ``(BATCH, T)``.

    No mask is needed: attention is causal, so no token sees the padding after it, and padding has no label.
    """
    by_length = sorted(range(len(encoded)), key=lambda i: sum(map(len, encoded[i])))
    groups = [by_length[i : i + BATCH] for i in range(0, len(by_length), BATCH)]
    while True:
        rng.shuffle(groups)
        for group in groups:
            length = max(sum(map(len, encoded[i])) for i in group)
            ids = torch.full((len(group), length), pad)
            labels = torch.full_like(ids, IGNORED)
            for row, index in enumerate(group):
                prompt, answer = encoded[index]
                end = len(prompt) + len(answer)
                ids[row, :end] = torch.tensor(prompt + answer)
                labels[row, len(prompt) : end] = torch.tensor(answer)
            yield ids, labels


def answer_loss(model: Qwen2ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of each exchange's mean loss a token of its answer, in nats.

    The vocabulary is projected at the labelled positions only.
    """
    targets = labels[:, 1:]
    kept = targets != IGNORED
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]), targets[kept], reduction="none")
    weights = (1 / kept.sum(1, keepdim=True)).expand_as(targets)[kept]
    return (losses * weights).sum() / len(ids)


def train_model(model: Qwen2ForCausalLM, data: Iterator[Batch], steps: int) -> float:
    """AdamW with a cosine schedule, in place; returns the last loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.05)
    warmup = min(WARMUP, max(1, steps // 4))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup), PEAK_LR / 100),
        ],
        milestones=[warmup],
    )
    model.train()
    value = float("nan")
    with tqdm(range(steps), desc="demo model", unit="step") as bar:
        for step in bar:
            ids, labels = next(data)
            loss = answer_loss(model, ids, labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 50 == 0 or step == steps - 1:
                value = loss.item()
                bar.set_postfix(loss=f"{value:.3f}")
    model.eval()
    return value


def build(out: Path, steps: int = STEPS, seed: int = SEED) -> float:
    """Build tokenizer and model and save both under `out`; returns the last training loss (nats a token).

    Raises:
        OSError: `out` cannot be written.
    """
    torch.manual_seed(seed)
    examples = corpus(min(40_000, 8 * BATCH + steps * BATCH), seed)
    tokenizer = make_tokenizer([f"user\n{e.question}\nassistant\n{e.answer}" for e in corpus(20_000, seed)])
    model = make_model(tokenizer)
    encoded = [encode(tokenizer, example) for example in examples]
    pad = tokenizer.encode(PAD)[0]
    loss = train_model(model, batches(encoded, pad, random.Random(seed)), steps)
    model.generation_config = GenerationConfig(
        eos_token_id=model.config.eos_token_id, pad_token_id=pad, do_sample=False
    )
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out)
    return loss


def main() -> None:
    """Command line of the build script."""
    parser = argparse.ArgumentParser(description="Build the demo model and its data files from nothing.")
    parser.add_argument("--out", type=Path, default=model_path(), help="folder; its name must contain 'qwen'")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of data order and weights")
    args = parser.parse_args()
    loss = build(args.out, args.steps, args.seed)
    data = FOLDER / "data" if args.out == model_path() else args.out / "data"
    paths = write_data(data)
    tqdm.write(f"model: {args.out} (last loss {loss:.3f} nats a token)")
    tqdm.write(f"data: {len(paths)} files under {data}")


if __name__ == "__main__":
    main()
