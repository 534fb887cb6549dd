"""Damage by somebody who knows nothing of the format. Functions of a `Random` and bytes."""


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
