"""Files: written atomically, and read though strangers made them."""
