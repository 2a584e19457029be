"""The scoreboard."""
def add_scoreboard(report, tables):
    pass
