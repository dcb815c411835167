"""`make compare`: the same pictures to Nereid, to what is used in its place, and to the bare model, in one run."""
