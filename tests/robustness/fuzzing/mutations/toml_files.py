"""TOML files with other values, keys or tables."""

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
