"""Reads of an object file what cross/link wants to know: its sections, and which of them refers to which. Little-endian ELF."""
import collections, struct

# Section types (ELF specification, 4-10).
SYMBOL_TABLE, ADDEND_RELOCATIONS, RELOCATIONS = 2, 4, 9


def references(path):
    """The names of the sections; for each that refers to others the names of these; the section of each named symbol."""
    with open(path, "rb") as file:
        data = file.read()
    wide = data[4] == 2
    start, = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
    size, count, names_at = struct.unpack_from("<HHH", data, 58 if wide else 46)
    layout = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
    if count == 0:
        # More sections than fit in the header's field: the number is in the first one.
        count = struct.unpack_from(layout, data, start)[5]
    sections = [struct.unpack_from(layout, data, start + n * size) for n in range(count)]
    if names_at == 0xFFFF:
        names_at = sections[0][6]
    text = lambda at: data[at:data.index(b"\0", at)].decode()
    names = [text(sections[names_at][4] + section[0]) for section in sections]
    places, homes = {}, {}
    for section in sections:
        if section[1] == SYMBOL_TABLE:
            for n, name, place in symbols(data, section, wide):
                places[n] = place
                homes[text(sections[section[6]][4] + name)] = names[place]
    found = collections.defaultdict(set)
    for name, kind, _, _, at, length, _, target, *_ in sections:
        if kind not in (ADDEND_RELOCATIONS, RELOCATIONS):
            continue
        # RELA has an addend, REL has none; the symbol is the upper part of the second word.
        step = (24 if wide else 12) if kind == ADDEND_RELOCATIONS else (16 if wide else 8)
        for entry in range(at, at + length, step):
            info, = struct.unpack_from("<Q" if wide else "<I", data, entry + (8 if wide else 4))
            place = places.get(info >> (32 if wide else 8))
            if place is not None and place < count:
                found[names[target]].add(names[place])
    return names, found, homes


def symbols(data, table, wide):
    """Number, place of the name and section of each symbol that has a section."""
    size = 24 if wide else 16
    for n in range(table[5] // size):
        at = table[4] + n * size
        name, = struct.unpack_from("<I", data, at)
        place, = struct.unpack_from("<H", data, at + (6 if wide else 14))
        # Above are no sections but absolute values and the like.
        if 0 < place < 0xFF00:
            yield n, name, place
