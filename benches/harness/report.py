"""What benches found: records, one JSON object a line, and the tables that people read, which are made of them."""
import datetime, itertools, json, os, pathlib, platform, statistics, subprocess, time

from .server import ROOT, release

# Fields of a record in the order of a table's columns: the heading, and how a value is written.
COLUMNS = {
    "flood": ("of the flood/s", "{:,.0f}"),
    "rate": ("calls/s", "{:,.0f}"),
    "p50_us": ("p50 µs", "{:,.0f}"),
    "p99_us": ("p99 µs", "{:,.0f}"),
    "quiet_p99_us": ("p99 µs without", "{:,.0f}"),
    "p99_ratio": ("with ÷ without", "{:.1f}"),
    "failed": ("failed", "{:,.0f}"),
    "ms": ("ms", "{:,.0f}"),
    "cpu_us": ("CPU µs a call", "{:.1f}"),
    "cpu_ms": ("CPU ms", "{:.1f}"),
    "rss_kb": ("RSS kB", "{:,.0f}"),
    "anonymous_kb": ("anonymous kB", "{:,.0f}"),
    "before_kb": ("RSS before, kB", "{:,.0f}"),
    "peak_kb": ("at its peak", "{:,.0f}"),
    "after_kb": ("after", "{:,.0f}"),
    "instructions": ("instructions", "{:,.0f}"),
    "rate_ratio": ("our rate ÷ its", "{:.2f}"),
    "cpu_us_ratio": ("our CPU ÷ its", "{:.2f}"),
    "ms_ratio": ("our time ÷ its", "{:.2f}"),
    "aim": ("aim", "{}"),
}
OURS = "tinyfaas"
# Pairs whose ratios differ by more than this part of their median say that something else ran.
NOISY = 0.3
NOISE = "Marked \\*: the pairs of that line differ by more than 30 %, so the machine was not quiet."


def results():
    """The file of records; `benches/run` names one for all benches."""
    path = pathlib.Path(os.environ.get("TINYFAAS_BENCH_RESULTS", ROOT / "target/benches.jsonl"))
    path.parent.mkdir(exist_ok=True)
    return path


def machine():
    """What was measured, and on what."""
    with open("/proc/cpuinfo") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    binary = release()
    version = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.strip()
    return {
        "bench": "machine", "date": datetime.date.today().isoformat(), "processor": [*models, platform.machine()][0],
        "cores": os.cpu_count(), "kernel": platform.release(), "version": version, "bytes": os.path.getsize(binary),
        "load": os.getloadavg()[0],
    }


class Report:
    """The records of one bench, which are printed as tables at its end."""

    def __init__(self, bench):
        self.bench, self.records = bench, []
        subprocess.run([ROOT / "benches/quiet"], check=True)

    def add(self, table, case, who, figures, **more):
        record = {"bench": self.bench, "table": table, "case": case, "who": who, **figures, **more}
        self.records.append(record)
        with open(results(), "a") as file:
            file.write(json.dumps(record) + "\n")

    def compare(self, table, case, contenders, rounds, key="rate", aims=None, **more):
        """Lets contenders take turns, so that what else the machine does meets all; the first one is ours. Each is a
        function that gives figures. The medians count, and the median of the pairs' ratios. `aims` are texts for
        some of them."""
        found = {who: [] for who in contenders}
        for _ in range(rounds):
            for who, measure in contenders.items():
                found[who].append(measure())
        ours = next(iter(found.values()))
        for who, figures in found.items():
            record = {field: statistics.median(f[field] for f in figures) for field in figures[0]}
            if figures is not ours:
                for field in {key, "cpu_us"} & record.keys():
                    ratios = [a[field] / b[field] for a, b in zip(ours, figures)]
                    record[f"{field}_ratio"] = statistics.median(ratios)
                    if field == key:
                        record["noisy"] = (max(ratios) - min(ratios)) / statistics.median(ratios) > NOISY
            if who in (aims or {}):
                record["aim"] = aims[who]
            self.add(table, case, who, record, **more)

    def print(self):
        for title, text in tables(self.records):
            print(f"{title}\n\n{text}\n", flush=True)


def tables(records):
    """Title and markdown of each table in the records of a bench."""
    for title, rows in itertools.groupby(records, lambda record: record["table"]):
        rows = list(rows)
        columns = [field for field in COLUMNS if any(field in row for row in rows)]
        lines = [["", "", *(COLUMNS[field][0] for field in columns)], ["---"] * (len(columns) + 2)]
        before = None
        for row in rows:
            cells = [COLUMNS[field][1].format(row[field]) if field in row else "" for field in columns]
            mark = r" \*" if row.get("noisy") else ""
            lines.append(["" if row["case"] == before else row["case"], row["who"] + mark, *cells])
            before = row["case"]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        yield title, text + (f"\n\n{NOISE}" if any(row.get("noisy") for row in rows) else "")
