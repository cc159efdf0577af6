"""What a release binary is made of: its sections, and its code by crate, from the file and its symbols (`tinyfaas.debug`)."""
import collections, pathlib, re, subprocess

# Of a generic's name, the crate that made it what it is comes after these.
STANDARD = {"core", "alloc", "std"}
PATH_START = re.compile(r"(?<![\w:])([a-z_]\w*)::")
RUST = re.compile(r"::|^_R|^<")


def sections(path):
    """Bytes of each section that is loaded, by name."""
    found = {}
    for line in run("readelf", "-SW", path).splitlines():
        field = re.match(r"\s*\[ *\d+\] (\S+)\s+\S+\s+\S+\s+\S+ (\S+) \S+\s+(\S*)", line)
        # A: it is in memory when the program runs.
        if field and "A" in field[3]:
            found[field[1]] = int(field[2], 16)
    return found


def crates(path):
    """Bytes of code by crate. A generic counts for the first crate in its name that is not std's."""
    found = collections.Counter()
    for line in run("nm", "-S", "-C", symbols(path)).splitlines():
        field = re.match(r"[0-9a-f]+ ([0-9a-f]+) [tTwW] (.*)", line)
        if field:
            found[crate(field[2])] += int(field[1], 16)
    return dict(found.most_common())


def crate(name):
    if not RUST.search(name):
        return "C and assembler"
    named = PATH_START.findall(name)
    return next((c for c in named if c not in STANDARD), "std")


def symbols(path):
    """The file with the symbols: cross/build puts it beside the binary."""
    beside = pathlib.Path(path).with_name("tinyfaas.debug")
    return beside if beside.exists() else path


def run(*args):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, check=True).stdout
