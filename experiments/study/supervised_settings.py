"""Settings of the supervised baseline's training. No torch."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from circuitry.runs import InputError
from circuitry.runs.given import Amount, Count, Positive, at_least, checked, one_of
from circuitry.training.training_settings import ModelTraining

PRECISIONS = ("fp32", "amp", "amp_bf16")


@checked
@dataclass(frozen=True, kw_only=True)
class SupervisedTraining(ModelTraining):
    """Settings of `train_supervised`; the defaults of rates, batch and epochs are the study's."""

    STUDY: ClassVar = {"precision": "amp", "keep_checkpoints": 5, "decoding": "as-stored"}
    epochs: Count = 90
    batch_size: Annotated[int, at_least(2)] = 256
    lr: Positive = 0.01
    milestones: tuple[Count, ...] = (30, 50, 70)
    """Epochs, counted from 0, at which the learning rate falls to a tenth."""
    weight_decay: Amount = 1e-4
    precision: Annotated[str, one_of(*PRECISIONS)] = "fp32"
    """Precision: fp32; amp_bf16, forward passes in bfloat16 where PyTorch finds it safe; amp, in float16 with a scaled
    loss (on the CPU: amp_bf16)."""

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise InputError(
                f"The milestones of a training are epochs above 0 in rising order, but {self.milestones} was given."
            )
