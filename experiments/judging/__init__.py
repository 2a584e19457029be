"""Judge methods that find circuits: by the tables of a scoreboard, and by networks whose circuit is planted."""
