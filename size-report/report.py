"""Tables that a person reads, from what was measured; REPORT.md's are between two marks each and replaced."""
import re

BIGGEST = 24
NAMES = {"Rss": "RSS", "Pss": "PSS", "Private_Dirty": "private dirty", "Anonymous": "anonymous", "threads": "threads"}


def file_tables(files):
    builds = sorted(files)
    rows = [[build, f"{files[build]['bytes']:,}"] + [f"{size(files[build], *names):,}" for names in SECTIONS.values()]
            for build in builds]
    text = table(["target/flavour", "file, bytes", *SECTIONS], rows)
    first = files[next((build for build in builds if build.startswith("x86_64") and build.endswith("full")), builds[0])]
    crates = sorted(first["crates"].items(), key=lambda item: -item[1])
    rest = sum(size for _, size in crates[BIGGEST:])
    listed = ", ".join(f"{name} {round(size / 1024):,}" for name, size in crates[:BIGGEST])
    return f"{text}\nCode by crate, kB ({sum(first['crates'].values()) // 1024:,} in all): {listed}, others {rest // 1024:,}.\n"


SECTIONS = {"code": (".text",), "constants": (".rodata",), "tables with addresses": (".data.rel.ro", ".got"),
            "unwinding": (".eh_frame", ".eh_frame_hdr", ".ARM.exidx", ".ARM.extab"), "data": (".data", ".bss", ".tdata", ".tbss")}


def size(build, *names):
    return sum(build["sections"].get(name, 0) for name in names)


def memory_tables(server, handlers):
    idle = server["idle, three functions"]
    rows = [[name, *(f"{row[field]:,}" for field in NAMES), f"{row['Rss'] - idle['Rss']:+,} / {row['Anonymous'] - idle['Anonymous']:+,}"]
            for name, row in server.items()]
    text = table(["the server, kB", *NAMES.values(), "RSS / anonymous beside three functions idle"], rows)
    rows = [[name, *(f"{row[field]:,}" if field in row else "" for field in ("Rss", "Anonymous")), f"{row.get('Private', '')}"]
            for name, row in handlers.items()]
    return text + "\n" + table(["handlers, kB", "RSS", "anonymous", "own, with the container's shim and init"], rows)


def comparison(rev, old, new):
    text = f"Since {rev}, bytes:\n\n"
    for build in new:
        was, now = old[build], new[build]
        rows = [["file", was["bytes"], now["bytes"]]]
        rows += [[name, was["sections"].get(name, 0), now["sections"].get(name, 0)]
                 for name in dict.fromkeys([*was["sections"], *now["sections"]])]
        crates = dict.fromkeys([*was["crates"], *now["crates"]])
        changed = [[f"code of {name}", was["crates"].get(name, 0), now["crates"].get(name, 0)] for name in crates]
        rows += sorted(changed, key=lambda row: -abs(row[2] - row[1]))
        told = [[name, f"{a:,}", f"{b:,}", f"{b - a:+,}"] for name, a, b in rows if a != b or name == "file"]
        text += table([build, "was", "is", "more"], told) + "\n"
    return text


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def write(path, line):
    text = path.read_text()
    for name, content in {
        "measured": f"Taken on {line['date']} at {line['commit']}.\n",
        "files": file_tables(line["files"]),
        "memory": memory_tables(line["server"], line["handlers"]),
        "instructions": table(["a call", "instructions"], [[k, f"{v:,}"] for k, v in line["instructions"].items()]),
    }.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        text, count = mark.subn(lambda found: found[1] + content + found[2], text)
        if count != 1:
            raise SystemExit(f"size-report: {path} has no place for {name}: <!-- {name} --> … <!-- end -->")
    path.write_text(text)
