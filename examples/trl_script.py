"""Fine-tune with TRL on rows that were screened first: an ordinary script and three more lines.

    python examples/trl_script.py MODEL ROWS.jsonl OUTPUT

OUTPUT/run/report.html says what was removed, and why; OUTPUT/adapter is what was trained.
"""

import sys

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import forgetfilter  # 1

model, rows, output = sys.argv[1:4]
dataset = load_dataset("json", data_files=rows, split="train")

result = forgetfilter.screen(dataset, f"{output}/run", model)  # 2
dataset = result.kept  # 3

trainer = SFTTrainer(
    model=model,
    args=SFTConfig(output_dir=f"{output}/trainer", num_train_epochs=3, max_length=None),
    train_dataset=dataset,
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
)
trainer.train()
trainer.save_model(f"{output}/adapter")
