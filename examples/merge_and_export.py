"""Carry a change elsewhere: into the weights, and as a PEFT adapter. Runs on the demo model without arguments."""

from __future__ import annotations

import tempfile

import torch

import easyedit_split as es
from easyedit_split.demo import data_path, model_path

M = 1.5


def main() -> None:
    model, tokenizer = es.load_model("demo")
    pairs = es.flat_pairs(es.load_pairs(data_path("reviews", "train")))
    artifact = es.train(model, tokenizer, pairs, site=es.Site(3), form="lora", config=es.TrainConfig(n_epochs=3))
    tokens = torch.tensor([tokenizer("What do you think of the sofa?").input_ids])

    with torch.no_grad():
        plain = model(tokens).logits
        with artifact.attach(model, M):
            hooked = model(tokens).logits
        merge = artifact.merge(model, M)
        merged = model(tokens).logits
        merge.undo()
        print(f"hooked and merged differ by {float((hooked - merged).abs().max()):.1e}")
        print(f"after undo the model is the plain one, bit for bit: {torch.equal(model(tokens).logits, plain)}")

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        artifact.to_peft(folder, m=M)
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_path()), folder).eval()
        difference = float((adapted(tokens).logits - hooked).abs().max())
        print(f"the PEFT adapter's logits differ from the hooked model's by {difference:.1e}")


if __name__ == "__main__":
    main()
