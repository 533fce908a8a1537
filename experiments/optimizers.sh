#!/usr/bin/env bash
# Every optimizer at two to four learning rates: 500 updates of tiny_shakespeare.yaml, loss on the whole validation split.
# Data first: python -m experiments.tiny_shakespeare FILE. Run from the project's root; OPTIMIZERS="muon sgd" for some.
set -euo pipefail
root=${1:-runs/optimizers}
export OMP_NUM_THREADS=1
declare -A rates=(
  [adamw]="1e-3 3e-3 1e-2 3e-2" [muon]="1e-3 3e-3 1e-2 3e-2" [muon-seed-2]="1e-2" [lion]="1e-4 3e-4 1e-3 3e-3"
  [adafactor]="3e-2 1e-1" [adafactor-decayed]="1e-2 3e-2 1e-1" [adafactor-absolute]="3e-3 1e-2" [sgd]="0.1 0.3 1.0"
)
declare -A more=(
  [muon-seed-2]="--seed_everything 2"
  [adafactor-decayed]="--model.optimizer.weight_decay 0.1"
  [adafactor-absolute]="--model.optimizer.weight_decay 0.1 --model.optimizer.scale_parameter false"
)
mkdir -p "$root"
for name in ${OPTIMIZERS:-adamw muon muon-seed-2 lion adafactor adafactor-decayed adafactor-absolute sgd}; do
  for rate in ${rates[$name]}; do
    overlay=(); [ "$name" = adamw ] || overlay=(-c "configs/optimizer/${name%%-*}.yaml")
    # shellcheck disable=SC2086
    lightning-nlp fit -c experiments/tiny_shakespeare.yaml "${overlay[@]}" --model.optimizer.lr "$rate" ${more[$name]:-} \
      --model.schedule.warmup 50 --trainer.max_steps 500 --trainer.validate_every 0 \
      --root "$root" --name "$name-$rate" --overwrite 2> "$root/$name-$rate.log"
    echo "$name lr $rate: $(grep -o '"val/loss": [0-9.]*' "$root/$name-$rate/metrics.jsonl" | tail -1)"
  done
done
