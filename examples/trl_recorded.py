"""Fine-tune with TRL as usual, record it, and screen the rows with what the model has learned.

    python examples/trl_recorded.py MODEL ROWS.jsonl OUTPUT

The screen learns nothing again. OUTPUT/adapter is the model trained on all rows; if the report in
OUTPUT/run removes some, train once more on OUTPUT/run/kept.jsonl.
"""

import sys

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import forgetfilter
from forgetfilter.integrations.trl_callback import record_training

model, rows, output = sys.argv[1:4]

trainer = SFTTrainer(
    model=model,
    args=SFTConfig(output_dir=f"{output}/trainer", num_train_epochs=3, max_length=None),
    train_dataset=load_dataset("json", data_files=rows, split="train"),
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    callbacks=[record_training(f"{output}/recorded")],
)
trainer.train()
trainer.save_model(f"{output}/adapter")

result = forgetfilter.screen(
    rows, f"{output}/run", model, learned_from=f"{output}/recorded", signal="restoration"
)
print(f"{len(result.removed)} of {len(result.scores)} rows removed: {output}/run/report.html")
