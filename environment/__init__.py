"""What the parts share about where they run; imports none of them."""
