#!/bin/sh
# Numbers in, one a line (the last field counts): how many, smallest, largest, mean, and a bar for each tenth of the range.
#
#   tinyfaas invoke summary --file readings.txt
#
# The answer starts while awk still runs, and memory does not grow with the body: only counts by rounded value are kept.

exec awk '
$NF ~ /^[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?$/ {
  v = $NF + 0
  if (!n || v < min) min = v
  if (!n || v > max) max = v
  n++; sum += v; seen[sprintf("%.3g", v)]++
}
END {
  if (!n) { print "no numbers: send one a line" > "/dev/stderr"; exit 1 }
  printf "count %d\nmin %g\nmax %g\nmean %g\n", n, min, max, sum / n
  width = (max - min) / 10
  if (width == 0) exit
  for (v in seen) { b = int((v - min) / width); if (b > 9) b = 9; if (b < 0) b = 0; bars[b] += seen[v] }
  for (b = 0; b < 10; b++) if (bars[b] > top) top = bars[b]
  for (b = 0; b < 10; b++) {
    printf "%10g ", min + b * width
    for (i = 0; i < bars[b] * 40 / top; i++) printf "#"
    print ""
  }
}'
