#!/usr/bin/env bash
# Does starting a classifier from a language model help? Three seeds, the same fine-tuning, and scratch with three times
# the steps, which costs about what pre-training and fine-tuning cost together. Run from the project's root.
set -euo pipefail
root=${1:-runs/pretraining_helps}
export OMP_NUM_THREADS=1
lightning-nlp fit -c experiments/debian_lm.yaml --root "$root" --overwrite
for seed in 1 2 3; do
  fit() { lightning-nlp fit -c experiments/debian_sections.yaml --root "$root" --overwrite --seed_everything $seed "$@"; }
  fit --name "pretrained-$seed" --init_from "$root/debian_lm"
  fit --name "scratch-$seed"
  fit --name "scratch-long-$seed" --trainer.max_steps 1200
  for arm in pretrained scratch scratch-long; do
    echo "== $arm seed $seed"
    lightning-nlp test --run "$root/$arm-$seed"
  done
done
