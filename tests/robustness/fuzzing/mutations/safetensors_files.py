"""Safetensors files whose header was written by hand: sizes, shapes, places, names, metadata."""

import json
import struct

from tests.robustness.fuzzing.mutations.json_values import mutate_value, to_json


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
