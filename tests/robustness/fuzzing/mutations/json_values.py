"""JSON in which a value, a key or a place is not what it was, deep or huge values included."""

import json

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
