"""`.npy` files with another header."""

import re


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
