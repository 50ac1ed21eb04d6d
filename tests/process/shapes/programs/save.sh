# No Python: a script with a trap.
save() {
  trap '' TERM
  echo "told run" | tee -a said
  sleep 0.3
  echo "SAVED run" | tee -a said
  exit 0
}
trap save TERM
echo "start run $$ TERM" | tee -a said
for _ in {1..600}; do sleep 0.1; done
