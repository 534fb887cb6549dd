"""Ways in which a file may be damaged or forged: blindly, and by somebody who knows its format.

Every function takes a `random.Random` and gives the new bytes.
"""

import json
import re
import struct

DEEP = "@deep@"
HUGE = "@huge@"
# Written into JSON in place of a string, because Python cannot hold or write them.
LITERALS = {f'"{DEEP}"': "[" * 3000 + "]" * 3000, f'"{HUGE}"': "1" + "0" * 400}
NASTY = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    255,
    1 << 16,
    1 << 31,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    1 << 64,
    -(1 << 63),
    0.5,
    -0.0,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    "",
    "x",
    "x" * 5000,
    "a\0b",
    "line\nend",
    "\ud800",
    "../../etc/passwd",
    "0" * 64,
    [],
    {},
    [[]],
    [1],
    [-1, 0],
    {"": 0},
    {"a": {"b": [None]}},
    DEEP,
    HUGE,
]


def flip_bits(random, data):
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def truncate(random, data):
    return data[: random.choice([0, 1, random.randrange(len(data)), len(data) - 1])]


def insert(random, data):
    place = random.randrange(len(data) + 1)
    return data[:place] + random.randbytes(random.randint(1, 64)) + data[place:]


def delete(random, data):
    begin = random.randrange(len(data))
    return data[:begin] + data[begin + random.randint(1, 64) :]


def overwrite(random, data):
    begin = random.randrange(len(data))
    length = min(random.randint(1, 64), len(data) - begin)
    byte = random.choice([b"\0", b"\xff", b" ", b"9", b'"', b"["])
    return data[:begin] + byte * length + data[begin + length :]


def repeat(random, data):
    begin = random.randrange(len(data))
    part = data[begin : begin + random.randint(1, 256)]
    place = random.randrange(len(data))
    return data[:place] + part + data[place:]


BLIND = [flip_bits, flip_bits, truncate, insert, delete, overwrite, repeat]


def to_json(value):
    text = json.dumps(value, ensure_ascii=True)
    for mark, literal in LITERALS.items():
        text = text.replace(mark, literal)
    return text


def places(value, path=()):
    """Every path in a JSON value but the root."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def mutate_value(random, value):
    """A copy of a JSON value with one or two things changed in it."""
    value = json.loads(json.dumps(value))
    for _ in range(random.choice([1, 1, 1, 2])):
        found = list(places(value)) if isinstance(value, dict | list) else []
        if not found or random.random() < 0.02:
            return random.choice(NASTY)
        # Short paths are few but matter most.
        depth = random.choice(sorted({len(path) for path in found}))
        *parents, last = random.choice([path for path in found if len(path) == depth])
        inside = value
        for key in parents:
            inside = inside[key]
        change(random, inside, last)
    return value


def change(random, inside, key):
    old = inside[key]
    way = random.randrange(8)
    if way == 0:
        del inside[key]
    elif way == 1 and isinstance(inside, dict):
        inside[random.choice(["x", "", str(key) + "x", str(key).upper()])] = inside.pop(key)
    elif way == 2 and isinstance(old, int | float) and not isinstance(old, bool):
        inside[key] = random.choice([old + 1, old - 1, -old, old * 10, old / 3, str(old), [old]])
    elif way == 3 and isinstance(old, str) and old:
        place = random.randrange(len(old))
        inside[key] = old[:place] + random.choice(["", "\0", "é", "9"]) + old[place + 1 :]
    elif way == 4 and isinstance(old, list) and old:
        inside[key] = random.choice([old[:-1], old * 2, old[::-1], old[:1], {"0": old}])
    else:
        inside[key] = random.choice(NASTY)


def json_value(random, data):
    return to_json(mutate_value(random, json.loads(data))).encode("utf-8", "surrogatepass")


def split_safetensors(data):
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join_safetensors(header, body):
    text = header.encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def header_value(random, data):
    header, body = split_safetensors(data)
    return join_safetensors(to_json(mutate_value(random, header)), body)


def header_size(random, data):
    (size,) = struct.unpack("<Q", data[:8])
    new = random.choice([0, 1, 2, size - 1, size + 1, len(data), 10**8, 1 << 31, (1 << 64) - 1])
    return struct.pack("<Q", new) + data[8:]


def tensor_entry(random, data):
    """Change type, shape or place of one tensor, or its name."""
    header, body = split_safetensors(data)
    names = [name for name in header if name != "__metadata__"]
    name = random.choice(names)
    entry = header[name]
    way = random.randrange(6)
    if way == 0:
        entry["dtype"] = random.choice(
            ["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X"]
        )
    elif way == 1:
        entry["shape"] = random.choice(
            [entry["shape"][::-1], [*entry["shape"], 1], [0], [], [1 << 40, 1 << 40], [-1]]
        )
    elif way == 2:
        shift = random.choice([-8, -1, 1, 4, 8, 1 << 40])
        entry["data_offsets"] = [offset + shift for offset in entry["data_offsets"]]
    elif way == 3:
        other = header[random.choice(names)]
        entry["data_offsets"] = other["data_offsets"]
    elif way == 4:
        header[random.choice(["", "x" * 300, "a\0", "probe.x", "é"])] = header.pop(name)
    else:
        del header[name]
    return join_safetensors(to_json(header), body)


def tensor_values(random, data):
    """Numbers that are none, or too large, in the middle of the tensors."""
    header, body = split_safetensors(data)
    values = bytearray(body)
    number = random.choice([float("nan"), float("inf"), 3e38, 1e-45, -1.0])
    place = random.randrange(len(values) // 4) * 4
    values[place : place + 4] = struct.pack("<f", number)
    return join_safetensors(json.dumps(header), bytes(values))


def metadata_value(random, data):
    """Change something inside the JSON of a metadata string."""
    header, body = split_safetensors(data)
    metadata = header["__metadata__"]
    name = random.choice(sorted(metadata))
    try:
        inner = json.loads(metadata[name])
    except ValueError:
        inner = metadata[name]
    metadata[name] = to_json(mutate_value(random, inner))
    return join_safetensors(to_json(header), body)


def npy_header(random, data):
    """Change type, shape or order in the header of a .npy file, or its version."""
    size = int.from_bytes(data[8:10], "little")
    header, body = data[10 : 10 + size].decode("latin1"), data[10 + size :]
    if random.random() < 0.2:
        return data[:6] + random.randbytes(2) + data[8:]
    key, values = random.choice(
        [
            (
                "descr",
                ["'<f8'", "'>f4'", "'<i8'", "'|b1'", "'|O'", "'<U3'", "[('a','<f4')]", "'?'"],
            ),
            ("descr", ["'<c8'", "'<f2'", "'<M8[D]'", "3", "None", "'" + "x" * 99 + "'"]),
            ("shape", ["(3,)", "()", "(0, 4)", "(-1, 4)", "(1e3, 4)", "(10**12, 4)", "(2**63, 2)"]),
            ("shape", [f"({10**400}, 2)", "(" * 300 + ")" * 300, "None", "'a'", "(True, 4)"]),
            ("fortran_order", ["True", "1", "'x'", "None", "__import__('os')"]),
        ]
    )
    header = re.sub(rf"'{key}': (\([^)]*\)|[^,]*),", f"'{key}': {random.choice(values)},", header)
    if random.random() < 0.1:
        header = header.replace("}", ", 'extra': 1}")
    text = header.strip().encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return data[:8] + len(text).to_bytes(2, "little") + text + body


TOML_VALUES = [
    "1",
    "-1",
    "0",
    "true",
    "nan",
    "inf",
    "1e400",
    "''",
    "'x'",
    "[]",
    "[1, 2]",
    "{a = 1}",
    "[[[[]]]]",
    "1979-05-27",
    "1" + "0" * 400,
    "9" * 5000,
    "0x" + "f" * 5000,
    "[" * 2000 + "]" * 2000,
    '"\\u0000"',
    '"' + "x" * 5000 + '"',
    "none",
]


def toml_value(random, data):
    lines = data.decode("utf-8").splitlines()
    for _ in range(random.choice([1, 1, 2])):
        place = random.randrange(len(lines))
        key = lines[place].partition("=")[0]
        way = random.randrange(6)
        if way == 0:
            lines.insert(place, random.choice(lines))
        elif way == 1:
            lines[place] = random.choice(
                ["[x]", "[[model]]", "[model.x]", "x = 1", ".".join("a" * 99)]
            )
        elif way == 2:
            lines[place] = lines[place].replace("_", random.choice(["", "-", "."]), 1)
        else:
            lines[place] = f"{key} = {random.choice(TOML_VALUES)}"
    return "\n".join(lines).encode("utf-8")


SAFETENSORS = [header_value, header_size, tensor_entry, tensor_values]
WAYS = {
    "checkpoint": [*BLIND, *SAFETENSORS, *[metadata_value] * 8],
    "safetensors": [*BLIND, *SAFETENSORS, tensor_entry],
    "json": [*BLIND, *[json_value] * 12],
    "npy": [*BLIND, *[npy_header] * 8],
    "toml": [*BLIND, *[toml_value] * 12],
    "lines": [*BLIND, *BLIND],
    "bytes": BLIND,
}


def mutate(random, data, kind):
    """What was done, and the damaged bytes."""
    way = random.choice(WAYS[kind])
    return way.__name__, way(random, data)
