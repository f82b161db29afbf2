"""Fine-tune with TRL as usual, and record it, so that a screen need not learn the rows again.

    python examples/trl_recorded.py MODEL ROWS.jsonl OUTPUT [--learning_rate 1e-4 ...]
    forgetfilter screen ROWS.jsonl --model MODEL --learned-from OUTPUT/recorded \
        --signal restoration --output-dir OUTPUT/run

Further options are those of SFTConfig. OUTPUT/adapter is trained on all rows: where the screen
removes some, train once more on OUTPUT/run/kept.jsonl.
"""

import sys

from datasets import load_dataset
from peft import LoraConfig
from transformers import HfArgumentParser
from trl import SFTConfig, SFTTrainer

from forgetfilter.integrations.trl_callback import record_training

model, rows, output, *options = sys.argv[1:]
options = ["--output_dir", f"{output}/trainer", *options]
(arguments,) = HfArgumentParser(SFTConfig).parse_args_into_dataclasses(options)
arguments.max_length = None  # TRL cuts rows otherwise, and a screen judges whole ones

trainer = SFTTrainer(
    model=model,
    args=arguments,
    train_dataset=load_dataset("json", data_files=rows, split="train"),
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    callbacks=[record_training(f"{output}/recorded")],
)
trainer.train()
trainer.save_model(f"{output}/adapter")
