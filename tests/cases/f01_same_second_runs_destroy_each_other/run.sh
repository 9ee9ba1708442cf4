#!/bin/bash
# Two trainings of one tool started in the same second, with the default run folder (runs/<tool>/<second>).
export OMP_NUM_THREADS=1 PATH=$PATH
cd "$(mktemp -d)"; mil simulate sim tool=binary simulation.patients=24 simulation.tiles=50 simulation.width=32 >/dev/null
go() { mil train tool=binary data.cohort=sim/cohort.csv data.features=sim/features trainer.max_epochs=20 callbacks=none baseline=false figures=false resamples=20 split=holdout seed=$1 > out$1 2> err$1; echo "seed $1: exit code $?"; }
for try in 1; do
  while [ $(date +%N | cut -c1) -gt 0 ]; do :; done   # at the start of a second
  go 0 & go 1 & wait
  tail -qn1 err0 err1; ls -R runs 2>/dev/null | head -20; rm -rf runs
done
