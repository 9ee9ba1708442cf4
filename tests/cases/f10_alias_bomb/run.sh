#!/bin/bash
. "$(dirname "$(readlink -f "$0")")/../common.sh"
base; python - >> base/config.yaml <<P
print("a0: &a0 [x,x,x,x,x,x,x,x,x,x]")
for i in range(1, 7): print(f"a{i}: &a{i} [" + ",".join([f"*a{i-1}"] * 10) + "]")
P
tail -c 400 base/config.yaml; time timeout 200 mil evaluate base; echo "exit code $? (124: still busy after 200 s)"
