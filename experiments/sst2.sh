#!/usr/bin/env bash
# Does pre-training on the same sentences help sentiment? Five seeds; every arm has its own best learning rate by validation
# accuracy out of the same three, and scratch trains as long as pre-training and fine-tuning take together.
# Run from the project's root: bash experiments/sst2.sh [ROOT]
set -euo pipefail
root=${1:-runs/sst2}
export OMP_NUM_THREADS=1
for seed in 1 2 3 4 5; do
  lightning-nlp fit -c experiments/sst2_mlm.yaml --root "$root" --name "mlm-$seed" --seed_everything $seed
  for lr in 2.0e-4 5.0e-4 1.0e-3; do
    fit() {
      lightning-nlp fit -c experiments/sst2.yaml --root "$root" --seed_everything $seed --model.optimizer.lr $lr "$@"
    }
    fit --name "pretrained-$lr-$seed" --init_from "$root/mlm-$seed"
    fit --name "scratch-$lr-$seed"
    fit --name "long-$lr-$seed" --trainer.max_steps 2600 --trainer.validate_every 200
    for arm in pretrained scratch long; do
      lightning-nlp test --run "$root/$arm-$lr-$seed" > "$root/$arm-$lr-$seed/test.txt" 2>&1
    done
  done
done
