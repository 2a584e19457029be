"""How work is started, shared out, resumed and written down."""
