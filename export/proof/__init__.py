"""Verifies an exported model: parity with its source, mean average precision in each precision."""
