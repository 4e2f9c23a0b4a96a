"""Agents: what a policy decides is checked, run apart from the agent's own process, and written down."""
