"""Fine-tune with TRL on rows that were screened first: an ordinary script and three more lines.

    python examples/trl_script.py MODEL ROWS.jsonl SAFE.jsonl OUTPUT [--learning_rate 1e-4 ...]

Further options are those of SFTConfig. OUTPUT/run/report.html says what was removed, and why;
OUTPUT/adapter is what was trained on the rest.
"""

import sys

from datasets import load_dataset
from peft import LoraConfig
from transformers import HfArgumentParser
from trl import SFTConfig, SFTTrainer

import forgetfilter  # 1

model, rows, safe, output, *options = sys.argv[1:]
options = ["--output_dir", f"{output}/trainer", *options]
(arguments,) = HfArgumentParser(SFTConfig).parse_args_into_dataclasses(options)
dataset = load_dataset("json", data_files=rows, split="train")

result = forgetfilter.screen(dataset, f"{output}/run", model, safe)  # 2
dataset = result.kept  # 3

trainer = SFTTrainer(
    model=model,
    args=arguments,
    train_dataset=dataset,
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
)
trainer.train()
trainer.save_model(f"{output}/adapter")
