"""The page, the figures and the terminal summary of a result; nothing heavy is imported before it is asked for."""
