#!/bin/bash
. "$(dirname "$(readlink -f "$0")")/../common.sh"
# the packed file keeps a sha256 of each slide; nothing compares it: predict, check, check --deep, train
base; mil convert sim/features p.h5 >/dev/null; mil predict base/checkpoint --features p.h5 --out a.csv >/dev/null
python - <<P
from pathlib import Path
from mil.features.packed import Packed
p = Path("p.h5"); at = Packed(p)._index.places["features"]; b = bytearray(p.read_bytes())
for i in range(at + 1, at + 40000, 2): b[i] ^= 0x80   # sign bits of 20,000 float16
p.write_bytes(b)
P
mil predict base/checkpoint --features p.h5 --out b.csv >/dev/null; echo "predict: exit code $?"; diff a.csv b.csv | head -8
mil check --deep ${OPT/$W\/sim\/features/$W\/p.h5} | tail -1
