"""The command `nereid`: each of its commands is the program of a part, with that part's own options."""
