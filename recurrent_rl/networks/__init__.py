"""Networks: trunks that remember, heads on top of them, and what describes both."""
