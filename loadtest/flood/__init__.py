"""`make flood`: more requests than a running server can answer, and what becomes of them."""
