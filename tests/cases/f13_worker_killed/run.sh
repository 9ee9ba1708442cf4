#!/bin/bash
. "$(dirname "$(readlink -f "$0")")/../common.sh"
mil train $OPT data.workers=2 data.memory=0 trainer.max_epochs=60 callbacks=none hydra.run.dir=$W/r 2>err & p=$!
waitfor $W/r 2; kill -9 $(pgrep -P $p 'mil|python|pt_' | head -1); wait $p; echo "exit code $?"; grep -c Traceback err; tail -1 err
